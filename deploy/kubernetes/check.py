"""Holds trainjob.yaml against the API of Kubeflow Trainer, as its own package describes it.

    python3 -m venv target/jobs
    target/jobs/bin/pip install --require-hashes --requirement tools/python/jobs.txt
    target/jobs/bin/python deploy/kubernetes/check.py docs/results/jobs-kubernetes.json

Kinds, keys (also those of the pods within), types and what is required are those of the package's models; what a
cluster's webhooks ask for besides is not known to them. Without an argument nothing is written.
"""

import hashlib
import importlib.metadata
import json
import pathlib
import sys

import yaml
from kubeflow_trainer_api import models

FILE = pathlib.Path("deploy/kubernetes/trainjob.yaml")
ROOT = pathlib.Path(__file__).resolve().parents[2]
KINDS = {
    "TrainingRuntime": models.TrainerV1alpha1TrainingRuntime,
    "TrainJob": models.TrainerV1alpha1TrainJob,
}


def unknown(given, taken, at=""):
    """Places of what the models do not know: it is not in what they give back."""
    if isinstance(given, dict) and isinstance(taken, dict):
        for key, value in given.items():
            if key in taken:
                yield from unknown(value, taken[key], f"{at}.{key}")
            else:
                yield f"{at}.{key}"
    elif isinstance(given, list) and isinstance(taken, list) and len(given) == len(taken):
        for i, (one, other) in enumerate(zip(given, taken)):
            yield from unknown(one, other, f"{at}[{i}]")
    elif given != taken:
        yield at


def problems(document):
    kind = document.get("kind")
    if kind not in KINDS or document.get("apiVersion") != "trainer.kubeflow.org/v1alpha1":
        return [f"{kind}: neither TrainingRuntime nor TrainJob of trainer.kubeflow.org/v1alpha1"]
    taken = KINDS[kind].from_dict(document).to_dict()
    return [f"{kind}: unknown: {place}" for place in unknown(document, taken)]


def main():
    text = (ROOT / FILE).read_bytes()
    documents = {d["kind"]: d for d in yaml.safe_load_all(text)}
    found = [p for d in documents.values() for p in problems(d)]
    # A wrong key must be found: else the checks above say nothing.
    for path in (["spec", "numNode"], ["spec", "trainer", "arg"], ["kind"]):
        wrong = json.loads(json.dumps(documents["TrainJob"]))
        at = wrong
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = "wrong"
        if not problems(wrong):
            found.append(f"a wrong {'.'.join(path)} is not noticed")
    runtime, job = documents["TrainingRuntime"], documents["TrainJob"]
    if job["spec"]["runtimeRef"]["name"] != runtime["metadata"]["name"]:
        found.append("the job refers to another runtime")
    for problem in found:
        print(problem, file=sys.stderr)
    if found:
        return 1
    package = "kubeflow-trainer-api"
    record = {
        "name": "jobs-kubernetes",
        "command": "deploy/kubernetes/check.py docs/results/jobs-kubernetes.json",
        package: importlib.metadata.version(package),
        "sha256": {str(FILE): hashlib.sha256(text).hexdigest()},
        "checked": sorted(documents),
    }
    print(f"{FILE}: {', '.join(sorted(documents))} as {package} {record[package]} has them")
    for out in sys.argv[1:2]:
        pathlib.Path(out).write_text(json.dumps(record, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
