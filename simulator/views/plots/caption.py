"""A figure's text about its question: the line under the title, and the footer."""

import hashlib
from collections.abc import Collection

from simulator._version import __version__
from simulator.answers.estimate import NOT_SURE_TO_FIT, Estimate, constants_note, model_notes
from simulator.answers.study import Study
from simulator.inputs.setup import Setup
from simulator.inputs.workload import Workload
from simulator.units import format_tokens
from simulator.views.plots.layout import Caption
from simulator.views.text import plural, query_phrase, settings_phrase

LAYOUTS = {
    "copies": "a context copy for each sample",
    "shared": "the context once",
    "rebuilt": "one context, concatenated anew on every step",
}


def caption(study: Study, varied: Collection[str] = ()) -> Caption:
    """Return the subject of a study's figure, and its assumptions.

    Parameters
    ----------
    varied
        What the figure varies, and the line under the title leaves out: ``model``, ``gpu`` or
        names of the workload's sizes and settings.

    Raises
    ------
    WorkloadError
        If the question cannot be run.
    """
    return Caption(subject(study, varied), tuple(_notes(study, fleet="gpu" in varied)))


def study_of(result: Estimate) -> Study:
    """Return an estimate's question, for a figure about it."""
    return Study(
        models=(result.model,), gpus=(result.gpu,), setup=result.setup, workload=result.workload
    )


def subject(study: Study, varied: Collection[str] = ()) -> str:
    """Describe model, GPU and workload, except for what is varied."""
    model, work = study.model, study.workload
    group = f"{study.setup.gpus} x " if study.setup.gpus > 1 else ""
    where = "" if "gpu" in varied else f" on {group}{study.gpu.name}"
    what = plural(len(study.models), "model") if "model" in varied else model.name
    how = _settings(study.setup, varied)
    if "model" in varied and len({str(each.weights) for each in study.models}) > 1:
        how = f"{how.rpartition(', ')[0]}, each model in its own formats"
    return f"{what}{where}; {', '.join(_sizes(work, varied))}; {how}"


def _sizes(work: Workload, varied: Collection[str]) -> list[str]:
    """Return the sizes that are not varied, as phrases."""
    phrases = {
        "samples": plural(work.samples, "sample"),
        "context_tokens": f"{format_tokens(work.context_tokens)}-token context",
        "decoded_tokens": plural(work.decoded_tokens, "own token"),
    }
    if work.prompts > 1:
        phrases["prompts"] = plural(work.prompts, "context")
    if work.query_tokens > 1:
        phrases["query_tokens"] = query_phrase(work)
    return [phrase for name, phrase in phrases.items() if name not in varied]


def _settings(setup: Setup, varied: Collection[str]) -> str:
    """Return kernel, execution and formats, those that are not varied."""
    phrase = settings_phrase(setup)
    for name in ("kernel", "execution"):
        if name in varied:
            word = f"{setup.kernel} kernel, " if name == "kernel" else f"{setup.execution}, "
            phrase = phrase.replace(word, "", 1)
    return phrase


def _notes(study: Study, *, fleet: bool) -> list[str]:
    """Return the footer: assumptions, profile and constants; the last two of one GPU only."""
    result = study.estimate("standard")
    share = f"Up to {study.setup.gpu_memory_utilization:.0%} of the card's memory may be used."
    first = f"Standard attention stores {LAYOUTS[study.setup.kv_layout]}. {share}"
    constants = constants_note(result.rates)
    # A figure has no room for what was assumed in reading the model.
    left_out = (*NOT_SURE_TO_FIT, "Reads of", constants, *model_notes(study.model))
    notes = [first, *(note for note in result.notes if not note.startswith(left_out))]
    if fleet:
        return [*notes, f"bifurcate {__version__}."]
    profile = f"Profile {study.gpu.id}, hash {study.gpu.content_hash}; bifurcate {__version__}."
    return [*notes, f"{constants} {profile}"]


def hash_of(hashes: Collection[str]) -> str:
    """Return one hash of several profiles'.

    >>> hash_of(["b", "a"]) == hash_of(["a", "b"])
    True
    """
    return hashlib.sha256(" ".join(sorted(hashes)).encode()).hexdigest()[:12]
