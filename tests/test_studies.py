import json
from pathlib import Path

import pytest

from trainplan import papers
from trainplan.lab.study import Study
from trainplan.lab.study_loading import find_study, load_study, studies_folder, study_slugs
from trainplan.lab.study_outcome import judge, overall

FOLDER = studies_folder()
assert FOLDER is not None
SAVED = sorted((FOLDER / "results").glob("*.json"))


@pytest.mark.parametrize("slug", study_slugs())
def test_every_study_tests_a_paper_of_the_catalogue_and_fits_on_a_few_pages(slug):
    source = find_study(slug)
    study = load_study(source)
    assert study.paper == slug
    assert papers.load(slug).study == slug
    assert study.claim
    assert study.budget
    assert len(Path(source).read_text().splitlines()) <= 200


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
def test_saved_verdicts_follow_from_the_saved_seeds(path):
    saved = json.loads(path.read_text())
    study: Study = load_study(find_study(path.stem))
    assert not saved["quick"]
    assert saved["options"] == {"seeds": None, "as planned": True}
    results = list(saved["results"].values())
    outcomes = judge(study, results, tuple(saved["looks"]))
    assert overall(outcomes) == saved["verdict"]
    assert saved["looks"] == list(study.looks)
    for outcome, claim in zip(outcomes, saved["claims"], strict=True):
        assert outcome.claim.text == claim["text"]
        assert outcome.claim.margin == claim["margin"]
        assert outcome.verdict == claim["verdict"]
        assert list(outcome.advantages) == pytest.approx(claim["advantages"])


@pytest.mark.parametrize("path", SAVED, ids=lambda path: path.stem)
def test_saved_results_tell_where_they_come_from(path):
    saved = json.loads(path.read_text())
    study = load_study(find_study(path.stem))
    assert saved["seeds"] == list(study.seeds)[: len(saved["seeds"])]
    assert {"python", "cpu", "date", "threads per worker"} <= saved["environment"].keys()
    assert saved["digests"]["study"]
    assert saved["seconds"] > 0
