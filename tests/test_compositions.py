"""Random compositions keep the contract; `benchmarks/soak.py` runs many more."""

from compositions import compose, examine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


@settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
@given(st.data())
def test_random_compositions_keep_the_contract(data):
    composition = compose(lambda options: data.draw(st.sampled_from(options)))
    fault = examine(composition)
    assert fault is None, fault
