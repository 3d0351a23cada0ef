"""Methods against one another: at equal judged gain by an independent count, and as a command with all its files."""

import base64
import csv
import json
import re
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

import zsteer
from zsteer.app.composition import compose
from zsteer.data.attributes import CELEBA
from zsteer.evaluation.figures import DRAWN, OPTIMUM, Comparison, figures, seconded
from zsteer.evaluation.report import agreement, markdown, markdown_of_ends
from zsteer.evaluation.trajectories import along, steered
from zsteer.evaluation.trials import (
    FLIP,
    GAINS,
    LEVELS,
    Trial,
    file_name,
    first_crossing,
    kept_trial,
    scorers_of,
    trial_of,
)
from zsteer.steering.reference import BUNDLED
from zsteer.steering.session import Session

DATA = ("data.num_train=8", "data.num_val=8", "data.num_test=40")


def test_an_image_crosses_a_level_where_the_line_between_two_steps_does():
    gain = torch.tensor([[0.0, 0.0, 0.0], [0.5, 2.0, -1.0], [1.5, 0.2, 0.9], [0.5, 3.0, 0.99]])
    found = first_crossing(gain, 1.0)
    torch.testing.assert_close(found, torch.tensor([1.5, 0.5, torch.nan]), equal_nan=True)
    path = torch.stack([gain, 10 * gain], dim=2)
    there = along(path, found)
    torch.testing.assert_close(there[:2], torch.tensor([[1.0, 10.0], [1.0, 10.0]]))
    assert there[2].isnan().all()
    torch.testing.assert_close(along(gain, torch.tensor([3.0, 0.0, 2.0])), torch.tensor([0.5, 0.0, 0.9]))
    own = first_crossing(gain, torch.tensor([1.25, 1.0, torch.nan]))
    torch.testing.assert_close(own, torch.tensor([1.75, 0.5, torch.nan]), equal_nan=True)


def trial(judge, step, seen):
    levels, n = step.shape
    nothing = torch.full((n, 3), -1.0)
    return Trial(
        step, judge, seen, torch.full((levels, n), 50.0), torch.ones(3, n), nothing, nothing, torch.zeros(n, 4),
        torch.zeros(2, n, 3, 4, 4, dtype=torch.uint8), torch.zeros(2, n),
    )  # fmt: skip


def test_a_kept_trial_that_is_damaged_is_none(tmp_path, comparison):
    path = tmp_path / "trial.safetensors"
    assert kept_trial(path) is None
    parts = vars(comparison.trials["plain", "b"]).items()
    kept = Trial(**{name: part.clone() for name, part in parts})  # safetensors refuse tensors that share memory
    kept.save(path)
    loaded = kept_trial(path)
    assert loaded is not None and torch.equal(loaded.judge, kept.judge)
    whole = path.read_bytes()
    for content in (b"", whole[:20], whole[:-1]):
        path.write_bytes(content)
        assert kept_trial(path) is None
    save_file({"step": torch.zeros(3)}, path)
    assert kept_trial(path) is None


@pytest.fixture
def comparison():
    """Attribute b of a, b and c is steered; the second contender changes half as much else, for half the images."""
    levels, n = len(LEVELS), 40
    gains = torch.tensor([*GAINS, 0.5])  # at the flip half a σ
    judge = torch.zeros(levels, n, 3)
    judge[:, :, 0], judge[:, :, 1], judge[:, :, 2] = 0.4, gains[:, None], -0.8
    step = torch.arange(levels).float()[:, None].expand(-1, n).clone()
    seen = gains[:, None].expand(-1, n) * 2
    better, late = judge.clone(), step.clone()
    better[:, :, [0, 2]] /= 2
    late[:, ::2] = torch.nan
    better[:, ::2] = torch.nan
    reference = torch.randn(500, 3, generator=torch.Generator().manual_seed(0))
    return Comparison(
        {("plain", "b"): trial(judge, step, seen), ("better", "b"): trial(better, late, seen)},
        {"plain": 1.0, "better": 1.0},
        [reference, 2 * reference],  # two classifiers that agree to ρ = 1
        ("abc", "abc"),
    )


def test_figures_count_side_effects_arrivals_and_what_only_the_classifier_saw(comparison):
    rows = {(row["level"], row["contender"]): row for row in figures(comparison, {("better", "b"): (0.9, 0.3)})}
    plain, better = rows[1.0, "plain"], rows[1.0, "better"]
    assert plain["attribute_dependency"] == pytest.approx(0.6)
    assert plain["attribute_dependency_max"] == pytest.approx(0.8)
    assert (plain["versus"], plain["disjoint"]) == (1.0, False)
    assert better["attribute_dependency"] == pytest.approx(0.3)
    assert (better["versus"], better["disjoint"]) == (pytest.approx(0.5), True)
    assert (plain["arrived"], better["arrived"]) == (1.0, 0.5)
    assert plain["hacking_gap"] == pytest.approx(1.0)  # saw 2 σ where the judge saw 1
    assert (plain["kid_at_end"], better["kid_at_end"], better["kid_unedited"]) == (None, 0.9, 0.3)
    assert rows[2.0, "plain"]["hacking_gap"] == pytest.approx(2.0)
    assert rows[FLIP, "plain"]["hacking_gap"] == pytest.approx(0.5)
    assert "| better | 0.30 ± 0.00 (50%) | 0.50 |" in markdown(list(rows.values()), 1.0)


def test_contenders_that_start_from_other_images_are_no_pairs(comparison):
    comparison.signs["better"] = -1.0
    better = next(row for row in figures(comparison, {}) if (row["level"], row["contender"]) == (1.0, "better"))
    assert (better["versus"], better["versus_low"]) == (pytest.approx(0.5), None)  # of the half of them that arrives
    comparison.trials["better", "b"].judge[:, :22] = torch.nan
    better = next(row for row in figures(comparison, {}) if (row["level"], row["contender"]) == (1.0, "better"))
    assert better["versus"] is None


def test_a_limit_says_how_much_of_the_way_to_it_each_contender_goes(comparison):
    drawn = torch.zeros(len(LEVELS), 10, 3)  # of ten other faces
    drawn[:, :, 2] = 0.2  # so that the mean over a and c is 0.1
    comparison.trials[DRAWN, "b"] = trial(drawn, torch.ones(len(LEVELS), 10), torch.ones(len(LEVELS), 10))
    comparison.signs[DRAWN] = 1.0
    rows = figures(comparison, {})
    ways = {row["contender"]: row["way_to_drawn"] for row in rows if row["level"] == 1.0}
    assert ways == {"plain": 0.0, "better": pytest.approx((0.6 - 0.3) / (0.6 - 0.1)), DRAWN: pytest.approx(1.0)}
    (limit,) = (row for row in rows if row["level"] == 1.0 and row["contender"] == DRAWN)
    assert (limit["versus"], limit["versus_low"]) == (pytest.approx(0.1 / 0.6), None)
    assert comparison.contenders == ["plain", "better"] and comparison.names == ["plain", "better", DRAWN]
    assert "| +1 σ | b | ratio | way to the drawn edit |" in markdown(rows, 1.0)


def test_what_one_of_two_judges_finds_is_marked(comparison):
    rows = figures(comparison, {})
    alike = dict(comparison.trials)
    alike["better", "b"] = alike["plain", "b"]  # the second judge sees no difference
    second = figures(Comparison(alike, comparison.signs, comparison.references, comparison.classes), {})
    joined = seconded(rows, second)
    confirmed = {row["contender"]: row["confirmed"] for row in joined if row["level"] == 1.0}
    assert confirmed == {"plain": None, "better": False}
    table = markdown(joined, 1.0)
    assert "| +1 σ | b | ratio | ratio, second judge |" in table
    assert "| better | 0.30 ± 0.00* (50%) | 0.50 | 1.00 |" in table and "0.60 ± 0.00 (100%)" in table
    assert agreement(joined)[1].endswith("below the first one's: 1 verdicts, 1 of one judge only (*).")
    assert agreement(rows) == []


def test_a_drawn_edit_that_few_drawn_faces_reach_is_no_limit(comparison):
    drawn = torch.full((len(LEVELS), 10, 3), 0.1)
    drawn[:, 4:] = torch.nan
    comparison.trials[DRAWN, "b"] = trial(drawn, drawn[:, :, 0], drawn[:, :, 0])
    comparison.signs[DRAWN] = 1.0
    for row in figures(comparison, {}):
        assert row["way_to_drawn"] is None
        if row["contender"] == DRAWN:
            assert (row["versus"], row["arrived"]) == (None, pytest.approx(0.4))


def test_the_way_to_the_optimum_is_of_the_images_that_have_it(comparison):
    best = comparison.trials["plain", "b"].judge.clone()
    best[:, :, [0, 2]] /= 4
    best[:, :20] = torch.nan
    comparison.trials[OPTIMUM, "b"] = trial(best, best[:, :, 0], best[:, :, 0])
    comparison.signs[OPTIMUM] = 1.0
    comparison.trials["plain", "b"].judge[:, :20, [0, 2]] *= 3  # of images that the optimum has not
    ways = {row["contender"]: row["way_to_optimum"] for row in figures(comparison, {}) if row["level"] == 1.0}
    assert ways == {"plain": 0.0, "better": pytest.approx((0.6 - 0.3) / (0.6 - 0.15)), OPTIMUM: pytest.approx(1.0)}
    comparison.signs["better"] = -1.0  # another edit has no way to this limit
    ways = {row["contender"]: row["way_to_optimum"] for row in figures(comparison, {}) if row["level"] == 1.0}
    assert ways["better"] is None


def test_only_images_that_lack_what_is_wanted_count_at_the_flip(comparison):
    comparison.trials["plain", "b"].start[:10, 1] = 1.0  # ten that have it
    comparison.trials["plain", "b"].judge[LEVELS.index(FLIP), :16] = torch.nan  # and six more that never flip
    arrived = {row["level"]: row["arrived"] for row in figures(comparison, {}) if row["contender"] == "plain"}
    assert arrived == {FLIP: pytest.approx(24 / 30), 1.0: 1.0, 2.0: 1.0}


def test_ends_are_averaged_over_the_targets_that_have_a_figure():
    rows = [
        {"level": FLIP, "contender": "a", "success_rate_at_end": s, "preservation_rate_at_end": None}
        | {"kid_at_end": edited, "kid_unedited": unedited}
        for s, edited, unedited in ((0.5, 2.0, 1.5), (1.0, None, None), (0.75, 1.0, -0.5))
    ]
    assert markdown_of_ends(rows).splitlines()[-1] == "| a | 75% | – | 3.0 |"


def test_a_trials_images_move_in_jobs_of_eight_and_are_judged_at_every_step():
    words = ["method=tutorial", "num_steps=3", "penalty_weight=0", "target=Smiling"]
    cfg = compose("steer", [*words, "num_images=16", "trainer=cpu"])
    session = Session(cfg)
    scorers = scorers_of(session, compose("compare"))
    trajectory = steered(session, scorers, cfg)
    eight = session.job(compose("steer", [*words, "num_images=8", "trainer=cpu"]))
    (alone,) = session.steer([eight], progress_bar=False)
    assert trajectory.noise is not None
    torch.testing.assert_close(trajectory.noise[-1, :8], alone.noise[-1], rtol=0, atol=1e-3)
    column = CELEBA.index("Smiling")
    for role, scorer in scorers.items():
        found = trial_of(session, scorer, cfg, trajectory, role)
        judged = scorer.judge.logits(alone.images[3])
        torch.testing.assert_close(found.end[:8], judged, rtol=0, atol=0.05)
        gain = (judged - found.start[:8])[:, column] / scorer.reference[:, column].std()
        # The frames end where an image has reached the largest gain, or with the run.
        expected = torch.where(found.step[len(GAINS) - 1][:8].isnan(), gain, GAINS[-1])
        torch.testing.assert_close(found.gains[-1], expected, rtol=0, atol=0.05)
        # The flip is where the judge's logit crosses zero.
        flipped = ~found.step[LEVELS.index(FLIP)].isnan()
        assert flipped.any() and (found.start[flipped, column] < 0).all()
        there = found.start[:, column] + found.judge[LEVELS.index(FLIP), :, column] * scorer.reference[:, column].std()
        torch.testing.assert_close(there[flipped], torch.zeros(int(flipped.sum())), rtol=0, atol=0.02)


def test_the_command_writes_tables_pictures_and_a_page_and_goes_on_where_it_stopped(command, tmp_path):
    words = (
        *(
            "what=methods",
            "num_images=8",
            "targets=[Smiling]",
            "limits=[drawn]",
            f"data.root={tmp_path / 'data'}",
            *DATA,
        ),
        "+contenders.tutorial=['method=tutorial','num_steps=2']",
        "+contenders.up=['method=direction','num_steps=2','step_size=2']",
    )
    ended = command("evaluate", *words)
    assert ended.code == 0, ended.err
    with (ended.folder / "methods.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["level"], row["contender"]) for row in rows] == [
        (level, name) for level in ("flip", "1.0", "2.0") for name in ("tutorial", "up", "drawn edit")
    ]
    assert all(row["second_arrived"] for row in rows if row["contender"] == "up")
    assert "tutorial" in ended.out
    # The tables say which networks they are about; the bundle keeps its reference logits by the same digits.
    names = json.loads((ended.folder / "metrics.json").read_text())["fingerprints"]
    assert all(
        (BUNDLED / f"{names['generator']}-{names[role]}.safetensors").is_file()
        for role in ("classifier", "judge", "second_judge")
    )
    page = (ended.folder / "report.html").read_text()
    networks = ", ".join(f"{role} {digits}" for role, digits in names.items())
    assert networks in ended.out and networks in page
    assert "http" not in page.replace("<!doctype html>", "")
    assert page.count('class="trial"') == 3
    for picture in ("frontier.png", "rescoring.png", "faces.png", "traversals.png"):
        assert (ended.folder / picture).read_bytes().startswith(b"\x89PNG")
    assert base64.b64encode((ended.folder / "traversals.png").read_bytes()).decode() in page
    trials = sorted((ended.folder / "trials").iterdir())
    written = [path.stat().st_mtime_ns for path in trials]
    (ended.folder / "status.json").write_text(json.dumps({"state": "failed"}))  # as if it had been killed
    again = command("evaluate", *words, f"hydra.run.dir={ended.folder}")
    assert again.code == 0, again.err
    assert [path.stat().st_mtime_ns for path in trials] == written


def test_a_trial_of_other_weights_or_settings_is_not_taken_for_this_one():
    jobs = [compose("steer", ["target=Bangs", *words]) for words in ([], ["seed=1"], ["num_images=9"])]
    names = {file_name("mine", job, [{"generator": digits}]) for job in jobs for digits in ("0a", "0b")}
    assert len(names) == 6
    assert all(re.fullmatch(r"mine_Bangs_[0-9a-f]{8}", name) for name in names)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["targets=[Smiling]"], "contenders=None: a comparison needs some"),
        (["+contenders.a=['method=ascent']", "targets=[]"], "targets=[]: a comparison needs some"),
        (["+contenders.a=['method=ascent']", "targets=[Smilling]"], "did you mean 'Smiling'?"),
        (["+contenders.a=['method=ascent']", "targets=[1]"], "targets=1 must be a name"),
        (["+contenders.a=['method=ascent']", "targets=[Smiling,age]"], "all of them labels, or all of them factors"),
        (["+contenders.a=['method=ascent']", "targets=[Smiling,Male+Bald]"], "or one that joins several"),
        (["+contenders.a=['method=ascend']", "targets=[Smiling]"], "ascend"),
        (["+contenders.a=['penalty_weight=-1']", "targets=[Smiling]"], "penalty_weight=-1"),
        (["+contenders.a='method=ascent'", "targets=[Smiling]"], "contenders.a=method=ascent must be a list of words"),
        (["+contenders.a=['method=ascent']", "targets=[Smiling]", "limits=[best]"], "limits=best must be one of drawn"),
        (
            ["contenders={drawn edit: ['method=ascent']}", "targets=[Smiling]"],
            "must have another name: that one is a limit's",
        ),
        (
            ["+contenders.a=['method=ascent']", "+contenders.b=['edit=remove']", "targets=[Smiling+Male]"],
            "targets=['Smiling+Male'] joins attributes: all contenders must have the same edit",
        ),
        (["+contenders.a=['method=ascent']", "targets=[Smiling]", "limits=drawn"], "limits=drawn must be a list"),
        (
            ["+contenders.a=['method=ascent']", "targets=[Smiling]", "second_judge.attributes=[Bald,Male]"],
            "check the settings of second_judge.network",
        ),
        (["+contenders.a=['method=ascent']", "targets=Smiling"], "targets=Smiling: a comparison needs some, as in"),
        (
            ["+contenders.a=['classifier.checkpoint=mine.pth']", "targets=[Smiling]"],
            "contenders.a: classifier.checkpoint=mine.pth cannot differ among contenders; give classifier to all",
        ),
        (
            ["+contenders.a=['record_every=5']", "targets=[Smiling]"],
            "contenders.a: record_every=5 cannot differ among contenders; of each every step is judged",
        ),
        (
            ["+contenders.a=['method=ascent']", "targets=[Sideburn,sideburns]"],
            "targets=['Sideburn', 'sideburns']: Sideburn and sideburns are the same attribute; keep one",
        ),
    ],
)
def test_a_wrong_contender_is_named_before_the_first_is_steered(command, tmp_path, words, said):
    ended = command("evaluate", "what=methods", f"data.root={tmp_path}", *DATA, *words)
    assert ended.code != 0
    assert said in ended.err.splitlines()[-1]
    assert not (ended.folder / "trials").exists()


def test_a_second_judge_of_ones_own_knows_the_targets(command, tmp_path):
    own = tmp_path / "own.safetensors"
    own.write_bytes((BUNDLED.parent / "judge_regressor.safetensors").read_bytes())
    words = ("second_judge=residual", f"second_judge.checkpoint={own}", "second_judge.attributes=[age,yaw]")
    ended = command("compare", "targets=[Smiling]", f"data.root={tmp_path}", *words)
    assert ended.code != 0
    said = ended.err.splitlines()[-1]
    assert "'Smiling' is not an attribute of second_judge; known are age, yaw; or switch it off" in said


COMPARED = ("~experiment", "limits=[drawn]", "+contenders.a=['method=ascent','num_steps=1']")


@pytest.mark.parametrize(("judge", "heard"), [("mine", False), ("second", False), ("bundled", True)])
def test_the_bundled_second_judge_has_no_say_beside_other_judges(tmp_path, monkeypatch, judge, heard):
    found = []

    def compare(cfg, jobs, folder):
        found.append(cfg.second_judge)
        return SimpleNamespace(metrics={}, report=str)

    monkeypatch.setattr("zsteer.evaluation.comparison.compare", compare)
    own = tmp_path / "own.safetensors"
    own.write_bytes((BUNDLED.parent / "judge.safetensors").read_bytes())
    words = ["judge=residual", f"judge.checkpoint={own}"] if judge == "mine" else [f"judge={judge}"]
    zsteer.compare(*COMPARED, *words, "targets=[Smiling]")
    assert (found[0] is not None) == heard


def test_the_bundled_second_judge_has_no_say_beyond_labels(tmp_path):
    compared = zsteer.compare(*COMPARED, *DATA, "targets=[age]", f"data.root={tmp_path}", num_images=2)
    assert "drawn edit" not in compared.comparison.names  # an age cannot be switched on
    assert set(compared.fingerprints) == {"generator", "classifier", "judge"}
    assert "second judge" not in str(compared)
