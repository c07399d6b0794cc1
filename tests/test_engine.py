"""Work done by Dask's workers is the work done here, whatever becomes of the workers."""

import importlib.util
import itertools
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from test_peers import project

from stages import encode, encoder, files, oneshot, params
from stages import engine as engines
from stages.command import UserError
from stages.engine import HERE, OnDask, engine
from stages.measures.episodes import draw_tasks, hits_by_ways, one_shot_hits
from stages.measures.ranking import retrieval_scores

ROOT = Path(__file__).parent.parent

needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="needs Dask"
)


@pytest.fixture(scope="module")
def workers():
    """Return the engine of two workers on this machine."""
    with engine(2) as started:
        yield started


def draw(kind, *, seed=0, images=240, classes=12, dim=32):
    """Return codes and labels, in no order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(images) % classes)
    codes = rng.normal(size=(images, dim))
    if kind == "ties":
        codes = rng.integers(3, size=(images, 2))
    elif kind == "eighths":
        codes = np.round(8 * codes) / 8
    elif kind == "duplicates":
        codes = codes[rng.integers(images // 4, size=images)]
    elif kind == "constant":
        codes = np.full((images, dim), 0.1)
    return codes.astype(np.float32), labels


KINDS = ("normal", "ties", "duplicates", "constant")
BLOCK = 40 * 240 * 4


def assert_scores(found, expected, atol=0.0):
    assert list(found) == list(expected)
    for name, scores in expected.items():
        np.testing.assert_allclose(found[name], scores, rtol=0, atol=atol, err_msg=name)


def means(scores):
    return {name: each.mean(axis=0) for name, each in scores.items()}


# Shards, in this process


@given(
    seed=st.integers(0, 2**32),
    # Of normal codes in eighths products are exact; of others they are rounded as a block's shape
    # has it, which may put two images the other way round: see the next test.
    kind=st.sampled_from(["eighths", "ties", "constant"]),
    shards=st.integers(1, 50),
    rows=st.integers(2, 48),
    asked=st.integers(1, 48),
)
def test_shards_and_blocks_do_not_matter(seed, kind, shards, rows, asked):
    codes, labels = draw(kind, seed=seed, images=48, classes=6)
    queries = np.random.default_rng(seed).integers(48, size=asked)
    whole = retrieval_scores(codes, labels, block_bytes=2**20)
    found = retrieval_scores(
        codes, labels, block_bytes=rows * 48 * 4, shards=shards, queries=queries
    )
    assert_scores(found, {name: scores[queries] for name, scores in whole.items()}, 1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shards", [2, 3, 7])
def test_shards_of_a_usual_size_give_the_same_scores(kind, shards):
    codes, labels = draw(kind, images=1200)
    whole = retrieval_scores(codes, labels, block_bytes=2**30)
    for rows in (1200, 150):
        found = retrieval_scores(codes, labels, block_bytes=rows * 4 * 1200, shards=shards)
        if kind == "normal":  # on AVX2 last bits put two images of a query the other way round
            near = np.isclose(found["average_precision"], whole["average_precision"], 0, 1e-6)
            assert np.count_nonzero(~near) <= 2
            assert_scores(means(found), means(whole), 1e-6)
        else:
            assert_scores(found, whole, 1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shards", [1, 3])
def test_average_precision_over_shards_is_that_of_scikit_learn(kind, shards):
    codes, labels = draw(kind, images=90, classes=5)
    found = retrieval_scores(codes, labels, block_bytes=30 * 30 * 4, shards=shards)
    for query, value in enumerate(found["average_precision"]):
        distances = np.delete(((codes.astype(float) - codes[query]) ** 2).sum(axis=1), query)
        relevant = np.delete(labels == labels[query], query)
        assert value == pytest.approx(average_precision_score(relevant, -distances))


def test_no_job_holds_more_distances_than_it_may(monkeypatch):
    from stages.measures import ranking

    made = []
    distances = ranking._Shard.distances

    def noted(*arguments):
        made.append(distances(*arguments))
        return made[-1]

    monkeypatch.setattr(ranking._Shard, "distances", noted)
    codes, labels = draw("normal", images=1200)
    for shards in (1, 5):
        made.clear()
        retrieval_scores(codes, labels, block_bytes=2**17, shards=shards)
        assert max(each.nbytes for each in made) <= 2**17
    assert sum(each.size for each in made) < 1.6 * 1200**2  # relevant ones are measured twice


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shards": 0}, r"Received: shards=0$"),
        ({"queries": np.array([48])}, r"Received: queries=\[48\]$"),
        ({"queries": np.array([[0]])}, r"Received: queries=\[\[0\]\]$"),
        ({"queries": np.array([-1])}, r"Received: queries=\[-1\]$"),
        ({"queries": np.array([2.0])}, r"Received: queries=\[2\.\]$"),
    ],
)
def test_wrong_shards_and_queries_are_refused(changed, message):
    codes, labels = draw("normal", images=48)
    with pytest.raises(ValueError, match=message):
        retrieval_scores(codes, labels, block_bytes=1, **changed)


# The same by Dask's workers


@needs_dask
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_retrieval_by_workers_gives_the_same_bits(workers, kind, shards):
    codes, labels = draw(kind)
    here = retrieval_scores(codes, labels, block_bytes=BLOCK, shards=shards)
    there = retrieval_scores(codes, labels, block_bytes=BLOCK, shards=shards, workers=workers)
    assert_scores(there, here)


@needs_dask
def test_one_shot_tasks_by_workers_give_the_same_bits(workers, monkeypatch):
    monkeypatch.setattr(oneshot, "_TASKS", 30)
    codes, labels = draw("ties")
    labels.sort()
    tasks = draw_tasks(np.random.default_rng(0), classes=12, examples=20, ways=5, count=100)
    for measure in (one_shot_hits, hits_by_ways):
        whole = measure(codes, tasks, labels)
        for each in (HERE, workers):
            shared = each.share(codes)
            found = oneshot.in_blocks(measure, shared, tasks, labels, each)
            np.testing.assert_array_equal(found, whole)


@needs_dask
@pytest.mark.parametrize("mirrored", [False, True])
def test_codes_by_workers_are_the_same_bits(workers, tmp_path, mirrored):
    name = project(tmp_path)
    experiment = params.load(tmp_path / "params.yaml").experiment(name)
    chosen = experiment.codes.model_copy(update={"mirrored": mirrored})
    experiment = experiment.model_copy(update={"codes": chosen})
    architecture = encoder.Architecture(experiment, 1, (8, 8, 1), 5)
    images = np.random.default_rng(0).integers(0, 256, (5, 12, 8, 8, 1), np.uint8)
    first = encoder.objective_of(architecture).model.get_weights()
    for weights in (first, [each + np.float32(0.1) for each in first]):
        found = []
        for each in (HERE, workers):
            shared = each.share(encoder.Encoder(architecture, weights))
            found.append([
                np.concatenate([
                    batch if function is encoder.judged_of else batch["neural_codes"]
                    for batch in encode.outputs_of(function, shared, images, 25, each)
                ])
                for function in (encoder.codes_of, encoder.judged_of)
            ])  # fmt: skip
        for here, there in zip(*found, strict=True):
            assert len(here) == 60
            assert here.dtype == np.float32
            np.testing.assert_array_equal(there, here)


@needs_dask
def test_results_come_in_the_order_of_jobs_that_are_taken_as_they_are_needed(workers):
    taken = 0

    def jobs():
        nonlocal taken
        for taken in itertools.count(1):
            yield taken, 2

    found = workers.map(pow, jobs())
    assert list(itertools.islice(found, 50)) == [number**2 for number in range(1, 51)]
    assert taken < 60
    found.close()


@needs_dask
def test_what_a_job_raises_arrives_as_it_is(workers):
    with pytest.raises(ValueError, match="invalid literal"):
        list(workers.map(int, [("1",), ("one",)]))
    with pytest.raises(UserError, match=r"^params\.yaml: no network$"):
        list(workers.map(refuse, [("params.yaml: no network",)]))


def refuse(message):
    raise UserError(message)


class Deadly(OnDask):
    """Loses a worker at every few results, ten times."""

    lost, given = 0, 0

    def map(self, function, jobs):
        for result in super().map(function, jobs):
            yield result
            self.given += 1
            nannies = list(self._client.cluster.workers.values())
            alive = [nanny.pid for nanny in nannies if nanny.pid]
            if self.given % 3 == 0 and self.lost < 10 and alive:
                os.kill(alive[self.lost % len(alive)], signal.SIGKILL)
                self.lost += 1


@needs_dask
def test_workers_killed_ten_times_change_nothing(workers):
    codes, labels = draw("duplicates")
    few = {"block_bytes": BLOCK // 8, "shards": 2}
    deadly = Deadly(workers._client)
    there = retrieval_scores(codes, labels, workers=deadly, **few)
    assert deadly.lost == 10
    assert_scores(there, retrieval_scores(codes, labels, **few))


@needs_dask
def test_a_job_that_ends_every_worker_is_one_line(workers, monkeypatch):
    from distributed import KilledWorker

    class Given:
        def result(self):
            raise KilledWorker("job", None, 20)

    monkeypatch.setattr(workers, "_submitted", lambda *_: Given())
    with pytest.raises(UserError, match=r"21 workers ended .* smaller codes\.batch"):
        list(workers.map(abs, [(1,)]))


# What can be wrong with a scheduler


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@needs_dask
def test_a_scheduler_that_does_not_answer_is_one_line(tmp_path):
    name, address = project(tmp_path), f"tcp://127.0.0.1:{free_port()}"
    text = (tmp_path / "params.yaml").read_text(encoding="utf-8")
    files.write_text(
        tmp_path / "params.yaml", text.replace("scheduler: null", f"scheduler: {address}")
    )
    done = subprocess.run(
        [sys.executable, "-m", "stages.oneshot", name],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(
        f"stages.oneshot {name}: params.yaml: cluster.scheduler: no Dask scheduler answers at "
        f"{address} ("
    )
    assert done.stderr.count("\n") == 1


def started(*words):
    program = f"import sys; from distributed.cli.dask_{words[0]} import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program, "--no-dashboard", *words[1:]],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])},
    )  # fmt: skip


@needs_dask
def test_a_scheduler_elsewhere_its_missing_workers_and_its_end(monkeypatch):
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    processes = [started("scheduler", "--host", "127.0.0.1", "--port", str(port))]
    try:
        monkeypatch.setattr(engines, "_SECONDS_OF_QUEUE", 0.5)
        with (
            pytest.raises(UserError, match=rf"no worker came to {address} within"),
            engine(address),
        ):
            pass
        monkeypatch.setattr(engines, "_SECONDS_OF_QUEUE", 60)
        processes.append(started("worker", address, "--no-nanny", "--nthreads", "1"))
        with monkeypatch.context() as patch:
            patch.setattr(engines, "__name__", "stages.none")
            with pytest.raises(UserError, match=r"No module .*stages\.none.* need this project"):
                engine(address).__enter__()
        with (
            pytest.raises(UserError, match="connection to Dask's scheduler was lost"),
            engine(address) as elsewhere,
        ):
            for number, found in enumerate(elsewhere.map(abs, ((-n,) for n in itertools.count()))):
                assert number == found
                if number == 20:
                    processes[0].kill()
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_dask_that_is_not_installed_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UserError, match=r"Dask is not installed: pip install -e '\.\[cluster\]'$"):
        engine(2).__enter__()


def test_work_in_this_process_loads_no_other_engine():
    program = (
        "import sys\n"
        "from stages import oneshot, retrieval\n"
        "from stages.engine import engine\n"
        "engine(None).__enter__()\n"
        "print(sorted({'dask', 'distributed', 'faiss', 'jax', 'keras'} & set(sys.modules)))\n"
        "from stages import encode\n"
        "print(sorted({'dask', 'distributed', 'faiss', 'jax'} & set(sys.modules)))"
    )
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert output.stdout.split() == ["[]", "[]"]


def test_keras_loads_no_package_that_no_stage_asks_it_for_and_is_tensorflow_s(tmp_path):
    (tmp_path / "keras.json").write_text('{"backend": "jax"}', encoding="utf-8")
    program = (
        "import sys\n"
        "from stages.backend import keras\n"
        "print(keras.backend.backend())\n"
        "print(sorted({'jax', 'matplotlib', 'scipy', 'sklearn'} & set(sys.modules)))\n"
        "import matplotlib.figure, sklearn.manifold\n"  # which can be had all the same
    )
    environment = {key: value for key, value in os.environ.items() if key != "KERAS_BACKEND"}
    output = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=True, cwd=ROOT,
        env=environment | {"KERAS_HOME": str(tmp_path)},
    )  # fmt: skip
    assert output.stdout.split() == ["tensorflow", "[]"]
