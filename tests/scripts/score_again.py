"""Score finished runs again from what they have stored, with every metric that their benchmark has now.

    python tests/scripts/score_again.py runs scored       then: harness compare ... --runs-dir scored --metric ...

The stored replies are scored, the stored adapters give the likelihood of the references, and the record is written into
the other folder with all scores. The largest difference from the scores that a run has is printed: it should be
rounding. A run that adds text to prompts is left out: only its method's code can make the prompts again. Not a test.
Run it in the folder where the runs were made, for their data are found by the same names.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from harness.adapters import load_bank
from harness.engines import Adapters, Fitted, Predicted, Transcript
from harness.errors import HarnessError
from harness.model import set_repeatable, split_examples
from harness.progress import Progress
from harness.runs import StoredRun, all_runs, find_run, open_sides, write_run
from harness.runs.chat import dataset_of
from harness.runs.loading import ADAPTERS, check_adapters, settings_of
from harness.runs.serving import read_served
from harness.scoring import Evaluation
from harness.store import Store


def again(run: StoredRun, store: Store, progress: Progress) -> str:
    """Score a run; returns a line on it."""
    record, replies = run.record, run.replies()
    assert replies is not None
    set_repeatable(int(settings_of(run)["threads"]))
    (side,) = open_sides([run], record.sums.personas[0], print)
    adapters, served = Adapters(side.top), {}
    if (folder := run.path / ADAPTERS).is_dir():
        check_adapters(run, None)
        served = read_served(run.path)
        adapters = Adapters(side.top, load_bank(folder, side.top, sorted(set(served.values()))), folder)
    dataset = dataset_of(run)
    places = replies.places
    examples = [example for example in split_examples(dataset, "test") if example.prompt.id in places]
    order = [places[example.prompt.id] for example in examples]
    stored = [replies.column("reply")[place] for place in order]
    asked = Transcript(dataset.protocol, progress).ask(Fitted.of(adapters, served), [e.prompt for e in examples])
    evaluation = Evaluation(dataset, None, store, progress)
    columns = evaluation.columns(examples, Predicted(stored, asked))
    gaps = {
        name: np.nanmax(np.abs(replies.scores(name)[order] - columns[name]))
        for name in columns
        if not np.isnan(replies.scores(name)).all()
    }
    sums = evaluation.sums(examples, range(len(examples)), columns)
    scores = {**record.scores, **evaluation.figures(sums)}
    write_run(store, record.amended(metrics=tuple(scores), scores=scores, per_persona=sums, files={}))
    worst = max(gaps, key=lambda name: gaps[name])
    return f"{run.id}: {len(examples)} replies, largest difference {gaps[worst]:.1e} ({worst}) of {', '.join(gaps)}"


def main() -> None:
    source, store, progress = Path(sys.argv[1]), Store(Path(sys.argv[2])), Progress()
    done = {run.id for run in all_runs(store.root)}
    for run in all_runs(source):
        if run.id not in done:
            try:
                print(again(find_run(source, run.id), store, progress))
            except HarnessError as error:
                print(f"{run.id}: left out, {error}")


if __name__ == "__main__":
    main()
