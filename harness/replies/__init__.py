"""From prompts through adapters to replies and likelihoods. The door for methods and scoring is `replying`."""
