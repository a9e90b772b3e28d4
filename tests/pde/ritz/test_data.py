"""Ritz data: the distribution, and what interruptions do to the file."""

import errno
import os
import shutil

import numpy as np
import pytest

from consolve.base.growing_file import part_path
from consolve.base.hdf5 import import_h5py
from consolve.pde.poisson.domains import make_domain
from consolve.pde.poisson.grid import GridOperator
from consolve.pde.ritz import data as ritz_data
from consolve.pde.ritz.check import check
from consolve.pde.ritz.data import RitzData, RitzDataBusy, RitzDataError, RitzSet, chunk_digest
from consolve.pde.ritz.generation import RitzSampler, generate, narrowed
from consolve.pde.ritz.lanczos import Lanczos
from consolve.pde.ritz.memory import Needs, NotEnoughMemory
from consolve.pde.ritz.step_log import StepLog, log_path

SMALL = RitzSet("closed-spheres", (7, 8), 30, 2100, seed=5)
"""Three chunks, the last short."""


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("ritz") / "small.h5"
    return path, generate(path, SMALL, command="consolve data ritz ...", revision="abc")


def files(directory):
    return sorted(path.name for path in directory.iterdir())


@pytest.mark.parametrize(
    "ritz_set",
    [
        SMALL,
        RitzSet("box", (6, 5, 4), 40, 20, seed=1, low_excess=0),
        RitzSet("spheres", (9, 9), 50, 20, seed=2, low_excess=100, domain_seed=4),
    ],
)
def test_right_hand_sides_are_the_weighted_sums_of_ritz_vectors(tmp_path, ritz_set):
    generate(tmp_path / "a.h5", ritz_set)
    operator = make_domain(ritz_set.domain, ritz_set.shape, ritz_set.domain_seed).operator()
    lanczos = Lanczos(operator, ritz_set.vectors, ritz_set.seed)
    lanczos.run()
    t = np.diag(lanczos.diagonal)
    t += np.diag(lanczos.off_diagonal[:-1], 1) + np.diag(lanczos.off_diagonal[:-1], -1)
    values, columns = np.linalg.eigh(t)
    low = min(ritz_set.vectors, ritz_set.vectors // 2 + ritz_set.excess)
    weights = np.where(np.arange(values.size) < low, 9.0, 1.0)
    with RitzData(tmp_path / "a.h5") as data:
        assert np.allclose(data.ritz_values, values, rtol=1e-12)
        assert data.attributes["low_vectors"] == low
        # The signs of the Ritz vectors are free: coefficients are compared without them.
        for i in (0, 7, 19):
            source = np.random.SeedSequence(ritz_set.seed, spawn_key=(1, i))
            drawn = weights * np.random.default_rng(source).standard_normal(values.size)
            b = data.right_hand_sides[i]
            assert not b[~operator.active].any()
            found = columns.T @ (lanczos.basis @ b[operator.active].astype(np.float64))
            assert abs(abs(found) - abs(drawn) / np.linalg.norm(drawn)).max() < 1e-5


def test_coefficients_have_the_published_spread(tmp_path):
    ritz_set = RitzSet("box", (10, 9), 90, 2000, low_excess=0)
    generate(tmp_path / "a.h5", ritz_set)
    with RitzData(tmp_path / "a.h5") as data:
        b = data.right_hand_sides[()].reshape(2000, -1).astype(np.float64)
        exact, vectors = np.linalg.eigh(data.operator.to_csr().toarray())
        assert np.allclose(data.ritz_values, exact, atol=1e-13)
    spread = ((b @ vectors) ** 2).mean(axis=0)
    ratio = spread[:45].mean() / spread[45:].mean()
    assert ratio == pytest.approx(81, rel=0.05)
    assert spread[:45].std() < 0.06 * spread[:45].mean()
    assert abs((b @ vectors).mean(axis=0)).max() < 5 / np.sqrt(2000) * np.sqrt(spread.max())


def test_ritz_values_near_zero_are_left_out():
    shape = (6, 6)
    faces = tuple(np.zeros(shape) for _ in shape)
    dirichlet = np.arange(1.0, 37).reshape(shape)
    dirichlet[0, :3] = 1e-9, 3e-7, 3.7e-7  # 36e-8 is the bound
    operator = GridOperator(faces, dirichlet, np.ones(shape, np.bool_))
    ritz_set = RitzSet("box", shape, 36, 5, low_excess=0)
    lanczos = Lanczos(operator, 36)
    lanczos.run()
    sampler = RitzSampler(ritz_set, operator, lanczos)
    assert sampler.values.size == 34
    assert sampler.values[0] == pytest.approx(3.7e-7, rel=1e-6)
    assert not abs(sampler.chunk(0)[:, 0, :2]).max() > 1e-6
    weights = abs(np.array([sampler.draw(i) for i in range(200)])).mean(axis=0)
    assert (weights[:18] > 5).all() and (weights[18:] < 2).all()


def test_a_shorter_set_is_the_beginning_of_a_longer_one(tmp_path, small):
    generate(tmp_path / "a.h5", RitzSet("closed-spheres", (7, 8), 30, 1030, seed=5))
    with RitzData(tmp_path / "a.h5") as short, RitzData(small[0]) as long:
        assert (short.right_hand_sides[()] == long.right_hand_sides[:1030]).all()


def test_what_a_file_says_of_itself(small):
    path, made = small
    with RitzData(path) as data:
        assert data.ritz_set == RitzSet("closed-spheres", (7, 8), 30, 2100, 5, 1)
        assert data.attributes["cells"] == [8, 7] and data.attributes["revision"] == "abc"
        assert (made.steps, made.samples, made.kept, made.digest) == (30, 2100, 30, data.digest)
        assert data.right_hand_sides.shape == (2100, 7, 8) and data.right_hand_sides.dtype == np.float32
        own, gallery = data.operator, make_domain("closed-spheres", (7, 8)).operator()
        assert (own.active == gallery.active).all() and (own.dirichlet == gallery.dirichlet).all()
        assert all((a == b).all() for a, b in zip(own.face_coefficient, gallery.face_coefficient))
        labels, closed = own.components
        means = data.right_hand_sides[()][:, labels == np.flatnonzero(closed)[0]].sum(axis=1)
        assert abs(means).max() < 1e-5
        assert "closed-spheres 8 x 7, 2100 right-hand sides, seed 5" in repr(data)
    assert files(path.parent) == ["small.h5"]


def test_the_basis_is_float32_where_float64_does_not_fit(tmp_path, small):
    operator = make_domain(SMALL.domain, SMALL.shape).operator()
    needs = Needs(SMALL, operator.unknowns)
    made = generate(tmp_path / "a.h5", SMALL, memory=needs.bytes("float64") - 1)
    assert made.basis == "float32" and small[1].basis == "float64"
    with RitzData(tmp_path / "a.h5") as narrow, RitzData(small[0]) as wide:
        assert np.allclose(narrow.ritz_values[-3:], wide.ritz_values[-3:], rtol=1e-6)
        assert narrow.attributes["basis"] == "float32" and narrow.digest != wide.digest
    assert check(tmp_path / "a.h5").faults == []


def test_too_many_vectors_for_the_memory_are_refused_with_the_number_that_fits(tmp_path):
    ritz_set = RitzSet("box", (64, 64), 4000, 10)
    needs = Needs(ritz_set, 4096)
    with pytest.raises(NotEnoughMemory, match=f"{needs.bytes('float32'):,} bytes") as error:
        generate(tmp_path / "a.h5", ritz_set, memory=1.5e8)
    most = needs.most_vectors(1.5e8)
    assert f"take at most {most} vectors" in str(error.value)
    assert needs.bytes("float32", most) <= 1.5e8 < needs.bytes("float32", most + 1)
    with pytest.raises(NotEnoughMemory, match="no number of vectors fits"):
        generate(tmp_path / "a.h5", ritz_set, memory=1e5)
    assert files(tmp_path) == []


def test_the_memory_that_is_counted_is_the_memory_that_is_used(tmp_path):
    import tracemalloc

    ritz_set = RitzSet("box", (32, 32), 600, 50)
    generate(tmp_path / "warm.h5", RitzSet("box", (4, 4), 4, 3))
    tracemalloc.start()
    generate(tmp_path / "a.h5", ritz_set)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.7 * Needs(ritz_set, 1024).bytes("float64") < peak < Needs(ritz_set, 1024).bytes("float64")


def test_narrowing_in_place_rounds_every_row():
    rows = np.random.default_rng(0).standard_normal((7, 5))
    expected = rows.astype(np.float32)
    narrow = narrowed(rows)
    assert (narrow == expected).all() and np.shares_memory(narrow, rows)


class Stop(Exception):
    pass


def stopping(what, at):
    def report(now, done, of):
        if (now, done) == (what, at):
            raise Stop

    return report


@pytest.mark.parametrize(
    ("what", "at", "steps", "samples"),
    [
        ("Lanczos steps", 1, 29, 2100),
        ("Lanczos steps", 17, 13, 2100),
        ("Lanczos steps", 30, 0, 2100),
        ("right-hand sides", 1024, 0, 1076),
        ("right-hand sides", 2100, 0, 0),
    ],
)
def test_an_interrupted_set_resumes_to_the_same_digest(tmp_path, small, what, at, steps, samples):
    path = tmp_path / "a.h5"
    with pytest.raises(Stop):
        generate(path, SMALL, report=stopping(what, at))
    assert not path.exists() and log_path(path).exists()
    with pytest.raises(RitzDataError, match="go on with --resume"):
        generate(path, SMALL)
    made = generate(path, SMALL, resume=True)
    assert (made.steps, made.samples, made.digest) == (steps, samples, small[1].digest)
    assert files(tmp_path) == ["a.h5"]
    assert (path.read_bytes()[-8192:] == small[0].read_bytes()[-8192:]) or check(path).faults == []


def test_a_resumed_set_keeps_the_basis_that_it_began_with(tmp_path):
    path = tmp_path / "a.h5"
    operator = make_domain(SMALL.domain, SMALL.shape).operator()
    needs = Needs(SMALL, operator.unknowns)
    with pytest.raises(Stop):
        generate(path, SMALL, needs.bytes("float32"), report=stopping("Lanczos steps", 9))
    assert generate(path, SMALL, resume=True).basis == "float32"
    path.unlink()
    with pytest.raises(Stop):
        generate(path, SMALL, report=stopping("Lanczos steps", 9))
    with pytest.raises(NotEnoughMemory, match="in float64 need"):
        generate(path, SMALL, needs.bytes("float32"), resume=True)


def test_damaged_records_are_made_again(tmp_path, small):
    path = tmp_path / "a.h5"
    with pytest.raises(Stop):
        generate(path, SMALL, report=stopping("right-hand sides", 2048))
    with open(log_path(path), "r+b") as log:  # in the record of step 21
        operator = make_domain(SMALL.domain, SMALL.shape).operator()
        log.seek(4096 + 21 * (24 + 8 * operator.unknowns) + 40)
        log.write(b"\1\2\3\4")
    with import_h5py().File(part_path(path), "r+") as part:
        part["right_hand_sides"][3, 2, 2] = 0.5
    made = generate(path, SMALL, resume=True)
    assert (made.steps, made.samples, made.digest) == (9, 1024 + 52, small[1].digest)


def test_a_log_cut_short_is_gone_on_with(tmp_path, small):
    path = tmp_path / "a.h5"
    with pytest.raises(Stop):
        generate(path, SMALL, report=stopping("Lanczos steps", 20))
    operator = make_domain(SMALL.domain, SMALL.shape).operator()
    os.truncate(log_path(path), 4096 + 11 * (24 + 8 * operator.unknowns) + 100)
    made = generate(path, SMALL, resume=True)
    assert (made.steps, made.digest) == (19, small[1].digest)


def test_resume_leaves_a_whole_file_and_refuses_another_set(tmp_path, small):
    path = tmp_path / "a.h5"
    shutil.copy(small[0], path)
    log_path(path).write_bytes(b"left by a kill between the last two steps")
    made = generate(path, SMALL, resume=True)
    assert (made.steps, made.samples, made.digest) == (0, 0, small[1].digest)
    assert files(tmp_path) == ["a.h5"]
    other = RitzSet("closed-spheres", (7, 8), 30, 2100, seed=6)
    with pytest.raises(RitzDataError, match="seed = 5, asked for is 6"):
        generate(path, other, resume=True)
    path.unlink()
    with pytest.raises(Stop):
        generate(path, SMALL, report=stopping("Lanczos steps", 9))
    with pytest.raises(RitzDataError, match="seed = 5, asked for is 6"):
        generate(path, other, resume=True)
    log_path(path).write_bytes(b"no json")
    with pytest.raises(RitzDataError, match="header is damaged; remove it"):
        generate(path, SMALL, resume=True)


def test_two_processes_do_not_make_one_file(tmp_path):
    path = tmp_path / "a.h5"
    with pytest.raises(Stop):
        generate(path, SMALL, report=stopping("Lanczos steps", 9))
    operator = make_domain(SMALL.domain, SMALL.shape).operator()
    settings = SMALL.settings(operator, "float64")
    log = StepLog(path, settings, operator.unknowns, SMALL.vectors, resume=True)
    try:
        with pytest.raises(RitzDataBusy, match="another process has it open"):
            generate(path, SMALL, resume=True)
    finally:
        log.close()


def test_a_disk_without_room_is_told_beforehand(tmp_path, monkeypatch):
    free = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: free)
    with pytest.raises(OSError, match="MB beside it for the Lanczos vectors, 0 MB are free"):
        generate(tmp_path / "a.h5", SMALL)
    assert files(tmp_path) == []


@pytest.mark.parametrize("at", [10, 31, 33])
def test_a_disk_that_fills_up_loses_nothing(tmp_path, small, monkeypatch, at):
    path, real, calls = tmp_path / "a.h5", os.pwrite, []

    def pwrite(handle, data, place):
        calls.append(place)
        if len(calls) > at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(handle, data, place)

    with monkeypatch.context() as patch:
        patch.setattr("consolve.base.growing_file.os.pwrite", pwrite)
        with pytest.raises(OSError, match="No space left on device; .* --resume goes on from there"):
            generate(path, SMALL)
    made = generate(path, SMALL, resume=True)
    assert made.digest == small[1].digest
    assert made.steps == max(0, 30 - at) and made.samples == (2100 if at < 32 else 1076)


@pytest.mark.parametrize(
    ("ritz_set", "message"),
    [
        (RitzSet("closed-box", (4, 4), 16, 5), "has rank 15, take 1 to 15"),
        (RitzSet("box", (4, 4), 0, 5), "take 1 to 16"),
        (RitzSet("box", (4, 4), 4, 0), "at least one right-hand side"),
        (RitzSet("box", (4, 4), 4, 4, low_excess=-1), "low_excess must be at least 0"),
        (RitzSet("moon", (4, 4), 4, 4), "unknown domain"),
    ],
)
def test_impossible_sets_are_refused(tmp_path, ritz_set, message):
    with pytest.raises(ValueError, match=message):
        generate(tmp_path / "a.h5", ritz_set)
    assert files(tmp_path) == []


def test_chunks_are_checked_when_they_are_first_read(tmp_path, small, monkeypatch):
    path = tmp_path / "a.h5"
    shutil.copy(small[0], path)
    picks, digests = np.array([2099, 3, 1030, 3]), []

    def counted(right_hand_sides):
        digests.append(len(right_hand_sides))
        return chunk_digest(right_hand_sides)

    monkeypatch.setattr(ritz_data, "chunk_digest", counted)
    with RitzData(path) as data:
        assert np.array_equal(data.read(picks[1:]), data.right_hand_sides[()][picks[1:]])
        assert digests == [1024, 1024]
        assert np.array_equal(data.read(picks), data.right_hand_sides[()][picks])
        assert np.array_equal(data.read(picks), data.right_hand_sides[()][picks])
        assert digests == [1024, 1024, 52] and data.read(picks[:0]).shape == (0, 7, 8)
        place = data.right_hand_sides.id.get_offset() + 4 * 56 * 1030
        os.utime(path)  # all is checked again, and good
        assert np.array_equal(data.read(picks), data.right_hand_sides[()][picks])
        assert digests[3:] == [1024, 1024, 52]
        with open(path, "r+b") as file:
            file.seek(place)
            file.write(np.float32(1e6).tobytes())
        data.read(picks[:2])
        with pytest.raises(RitzDataError, match="a.h5: right-hand sides 1024 to 2047: the content does not"):
            data.read(picks)
    with RitzData(path) as data:
        shutil.copyfile(generate_other(tmp_path), path)
        with pytest.raises(RitzDataError, match="replaced by another set while it was in use"):
            data.read(picks)


def generate_other(folder):
    generate(folder / "other.h5", RitzSet("closed-spheres", (7, 8), 30, 2100, seed=6))
    return folder / "other.h5"
