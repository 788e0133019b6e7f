"""Names of refs for repositories inside the work tree: whatever a path is, the host takes the name and git, too."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from coding_agents_guest.nestedref import MAX_NAME, NESTED, is_nested_name, nested_path, nested_ref

# Names of files are bytes; those that are no UTF-8 come as surrogates.
_FILE = st.binary(min_size=1, max_size=255).map(
    lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_").decode("utf-8", "surrogateescape")
)
_PATH = st.lists(_FILE, min_size=1, max_size=20).map("/".join)
_PLACES = st.lists(_PATH, min_size=1, max_size=9)


@given(_PLACES)
def test_whatever_a_path_is_the_host_takes_its_name(places: list[str]) -> None:
    assert is_nested_name(nested_ref(places).removeprefix(NESTED))


@given(_PLACES)
def test_a_short_name_tells_the_path(places: list[str]) -> None:
    name = nested_ref(places).removeprefix(NESTED)
    if "%7E" not in name:
        assert nested_path(name) == "/".join(places)


def test_a_deep_and_a_long_path_get_names_of_their_own() -> None:
    deep = [nested_ref([f"{'a/' * 500}{last}"]) for last in "xy"]
    long = [nested_ref(["/".join(["b" * 200] * 9 + [last])]) for last in "xy"]
    names = [ref.removeprefix(NESTED) for ref in deep + long]
    assert len(set(names)) == 4
    assert all(is_nested_name(name) and len(name) < MAX_NAME for name in names)
    assert all("%7E" in name for name in names)
