"""Several accounts on one device: none is lost, whatever happens on the way from one to another."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.errors import StoreError
from client.profiles import MAX_PROFILES, PROFILES, Profile, ProfileError, Profiles
from client.store import NODE, Store
from tests.client.fakes import key, netmap, node
from wire.netmap import UserProfile

FIRST = Profiles("aa01", (Profile(id="aa01", is_first=True, tailnet="one", account="ann@x"),))
TWO = Profiles("bb02", (*FIRST.all, Profile(id="bb02", tailnet="two", account="ann@x")))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "state")
    opened.open()
    yield opened
    opened.close()


def sign_in(store: Store, number: int, tailnet: str) -> None:
    """The account in use is Ann's in a tailnet."""
    store.set_identity(node=key(number), control_url=f"https://{tailnet}.example")
    owner = UserProfile(id=7, login_name="ann@example.com")
    store.describe_profile(netmap(own=node(number, user=7), domain=tailnet, user_profiles={7: owner}))


def reopened(store: Store) -> Store:
    store.close()
    again = Store(store.folder)
    again.open()
    return again


class TestTheList:
    def test_it_is_read_as_it_was_written(self) -> None:
        assert Profiles.from_json(json.loads(json.dumps(TWO.to_json()))) == TWO

    @pytest.mark.parametrize(
        "change",
        [
            {"format": 2},
            {"current": "cc03"},
            {"profiles": []},
            {"profiles": {}},
            {"profiles": [{"id": "../x"}]},
            {"profiles": [FIRST.all[0].to_json()] * 2},
            {"profiles": [FIRST.all[0].to_json(), {"id": "bb02", "first": True}]},
            {"profiles": [{"id": "bb02", "tailnet": 3}]},
        ],
    )
    def test_what_contradicts_itself_is_refused(self, change: dict[str, object]) -> None:
        with pytest.raises(ValueError, match=r"."):
            Profiles.from_json(TWO.to_json() | change)

    @given(st.dictionaries(st.text(max_size=10), st.none() | st.integers() | st.text(max_size=5), max_size=4))
    def test_any_object_is_read_or_refused(self, content: dict[str, object]) -> None:
        try:
            Profiles.from_json({"format": 1} | content)
        except ValueError:
            return

    def test_one_is_found_by_id_tailnet_or_account(self) -> None:
        assert TWO.find("aa01").id == TWO.find("one").id == "aa01"
        assert TWO.find("two").id == "bb02"
        with pytest.raises(ProfileError, match="several"):
            TWO.find("ann@x")
        with pytest.raises(ProfileError, match="no account named"):
            TWO.find("three")

    def test_the_one_in_use_stays(self) -> None:
        with pytest.raises(ProfileError, match="in use"):
            TWO.without("bb02")
        assert TWO.without("aa01").all == TWO.all[1:]

    def test_there_is_an_end(self) -> None:
        numbers = iter(range(1, 1000))
        profiles = FIRST
        for _ in range(MAX_PROFILES - 1):
            profiles = profiles.with_new(lambda size: next(numbers).to_bytes(size, "big"))
        assert len({profile.id for profile in profiles.all}) == MAX_PROFILES
        with pytest.raises(ProfileError, match="already"):
            profiles.with_new(bytes)


class TestTheStore:
    def test_each_account_has_its_own_keys_and_preferences(self, store: Store) -> None:
        sign_in(store, 1, "one")
        store.set_prefs(store.prefs.edited({"Hostname": "first", "OperatorUser": "root"}))
        store.save_netmap(netmap(node(9), own=node(1, public=key(1).public())))
        one = store.identity
        store.new_profile()
        assert store.identity.node is None
        assert store.identity.machine != one.machine
        assert store.prefs.hostname == ""
        assert store.prefs.operator == "root"
        assert store.load_netmap() is None
        sign_in(store, 2, "two")
        two = store.identity
        again = reopened(store)
        assert again.identity == two
        again.switch(again.profiles.find("one").id)
        assert (again.identity, again.prefs.hostname) == (one, "first")
        assert again.load_netmap() is not None
        back = reopened(again)
        assert back.identity == one
        back.switch(back.profiles.find("two").id)
        assert back.identity == two
        back.close()

    def test_one_that_never_signed_in_is_dropped(self, store: Store) -> None:
        sign_in(store, 1, "one")
        first = store.profiles.current_id
        store.new_profile()
        place = store.place
        store.switch(first)
        assert [profile.id for profile in store.profiles.all] == [first]
        assert not place.exists()

    def test_one_that_waits_for_an_answer_is_not(self, store: Store) -> None:
        sign_in(store, 1, "one")
        first = store.profiles.current_id
        store.new_profile()
        store.new_node_key()
        store.switch(first)
        assert len(store.profiles.all) == 2

    def test_a_damaged_account_is_not_entered(self, store: Store) -> None:
        sign_in(store, 1, "one")
        first, identity = store.profiles.current_id, store.identity
        store.new_profile()
        sign_in(store, 2, "two")
        second = store.profiles.current_id
        place = store.place
        store.switch(first)
        (place / NODE).write_text("{}")
        with pytest.raises(StoreError, match="is damaged"):
            store.switch(second)
        assert store.identity == identity
        assert reopened(store).identity == identity

    def test_a_lost_identity_is_not_made_anew(self, store: Store) -> None:
        sign_in(store, 1, "one")
        first = store.profiles.current_id
        store.new_profile()
        sign_in(store, 2, "two")
        second, place = store.profiles.current_id, store.place
        store.switch(first)
        shutil.rmtree(place)
        with pytest.raises(StoreError, match="is missing"):
            store.switch(second)
        assert not place.exists()
        (store.folder / NODE).unlink()
        with pytest.raises(StoreError, match="is missing"):
            reopened(store)

    def test_a_damaged_list_is_an_error_that_names_the_file(self, store: Store) -> None:
        sign_in(store, 1, "one")
        identity = store.identity
        path = store.folder / PROFILES
        path.write_text("{")
        with pytest.raises(StoreError, match=f"{PROFILES} is damaged.*remove it to use"):
            reopened(store)
        path.unlink()
        assert reopened(store).identity == identity

    def test_a_removed_account_leaves_no_key(self, store: Store) -> None:
        sign_in(store, 1, "one")
        first = store.profiles.current_id
        store.new_profile()
        sign_in(store, 2, "two")
        store.remove_profile(first)
        assert not (store.folder / NODE).exists()
        assert reopened(store).profiles.current.tailnet == "two"
