"""A few hundred spoiled inputs of every kind; tests/benchmarks/fuzz.py makes as many as one likes."""

import time
from random import Random

import pytest
from fuzzing.inputs import MAKERS, sound_input
from fuzzing.laws import LIMIT_S, judge, try_input
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize("kind", MAKERS)
def test_what_the_mutators_start_from_is_read(kind, tmp_path):
    name, files = sound_input(kind)
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    assert judge(kind, tmp_path / name if name else tmp_path) == "read"


@pytest.mark.parametrize("kind", MAKERS)
@settings(max_examples=20, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 2**32))
def test_a_spoiled_input_is_read_soundly_or_refused_in_one_line(kind, seed):
    started = time.process_time()
    assert try_input(kind, Random(seed)) in ("read", "refused")
    assert time.process_time() - started < LIMIT_S
