"""The doors to a method: what it gets to see, `fit` with its checks, `predict` turn depth by turn depth.

The runner and the conformance checks both come through here, so that a plugin is checked as it will be run.
Scoring and storing are the runner's business.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from harness import backbone as backbones
from harness.backbone import Backbone
from harness.errors import PluginError
from harness.fitted import Fitted
from harness.fitting import Control
from harness.plugins import Method
from harness.progress import Progress
from harness.records import Dataset, Prompt
from harness.scope import fitted_for, held_out
from harness.store import Store
from harness.study import Study


def make_study(
    method: Method,
    dataset: Dataset,
    scope: Collection[str],
    *,
    backbone: Backbone,
    options: Any,
    seed: int,
    required: Mapping[str, Fitted],
    store: Store,
    progress: Progress,
    control: Control | None = None,
    scorer: str | None = None,
    study_type: type[Study] = Study,
) -> Study:
    """A method's view of a data set: the people whose data it may use for the personas in `scope`, no test dialogue.

    scorer  folder of the sentence encoder, where the user has named one
    """
    out = held_out(dataset)
    personas = [p for p in fitted_for(dataset, frozenset(scope), method.card.shares) if p.id not in out]
    ids = {p.id for p in personas}
    return study_type(
        backbone=backbone,
        personas=personas,
        dialogues=[d for d in dataset.dialogues if d.split != "test" and d.persona in ids],
        protocol=dataset.protocol,
        options=options,
        seed=seed,
        required=required,
        store=store,
        progress=progress,
        control=control,
        newcomers=[p for p in dataset.personas if p.id in out and p.id in scope],
        scorer=scorer,
    )


def fit(method: Method, study: Study) -> Fitted:
    """What the method learns. Raises PluginError for another result than a Fitted."""
    fitted = method.fit(study)
    if not isinstance(fitted, Fitted):
        raise PluginError(f"method '{method.name}': fit returned {type(fitted).__name__}, not a harness.Fitted")
    return fitted


def check_backbone(name: str, backbone: Backbone, hook: str = "fit") -> None:
    """Raises PluginError if, after a hook, the weights are not those that were frozen."""
    if backbones.fingerprint(backbone.model, backbone.tokenizer) != backbone.fingerprint:
        raise PluginError(f"method '{name}' changed the frozen backbone's weights in {hook}; train adapters instead")


def predict(method: Method, study: Study, fitted: Fitted, prompts: Sequence[Prompt]) -> list[str]:
    """Replies in the order of the prompts, asked for turn depth by turn depth: no history shows what is still asked."""
    replies: dict[int, str] = {}
    for depth in sorted({p.depth for p in prompts}):
        places = [i for i, p in enumerate(prompts) if p.depth == depth]
        given = method.predict(study, fitted, [prompts[i] for i in places])
        replies.update(zip(places, given, strict=True))
    return [replies[i] for i in range(len(prompts))]
