"""Pictures of those that wait for a slot are encoded while the encoder has nothing else to do."""

from __future__ import annotations

from llamabox.engine.request import Media
from tests.engine.driver import Driver, request
from tests.fakes import FakeEncoder

CAT, DOG, OWL = Media(b"cat", 4, 4), Media(b"dog", 4, 4), Media(b"owl", 4, 4)


def busy(*pictures: Media, late: bool = True) -> Driver:
    """An engine whose one slot somebody has for long, who began with `pictures`."""
    driver = Driver(encoder=FakeEncoder(at_once=not late), n_slots=1, n_ctx=64)
    driver.submit(request("long", (*pictures, 5, 6, 7), n_predict=40))
    driver.step()
    return driver


def test_a_picture_of_one_that_waits_is_there_when_it_gets_its_slot() -> None:
    driver = busy()
    driver.submit(request("next", (CAT, 8), n_predict=2))
    driver.step()
    assert driver.encoder.outstanding == [CAT]
    assert driver.engine.n_waiting == 1
    driver.encode(0)
    driver.run()
    assert driver.encoder.n_made == 1
    assert not driver.met["a wait of all for the encoder"]


def test_one_after_the_other_in_the_order_of_arrival() -> None:
    driver = busy()
    for name, picture in (("first", CAT), ("second", DOG), ("third", OWL)):
        driver.submit(request(name, (picture, 8), n_predict=2))
    for picture in (CAT, DOG, OWL):
        driver.step()
        driver.step()
        assert driver.encoder.outstanding == [picture], "the encoder is kept from those that come to run"
        driver.encode(0)
    driver.run()


def test_a_picture_that_is_resident_is_not_encoded_ahead() -> None:
    driver = busy(CAT, late=False)
    driver.submit(request("again", (CAT, 5, 6, 9), n_predict=2))
    driver.step()
    assert driver.encoder.n_made == 1
    assert list(driver.encoder.wanted) == []
    driver.run()
    assert driver.encoder.n_made == 1


def test_one_that_goes_while_it_waits_wants_nothing_any_more() -> None:
    driver = busy()
    driver.submit(request("gone", (CAT, 8), n_predict=2))
    driver.step()
    driver.abort("gone")
    assert not driver.encoder.wanted
    driver.run()
    assert driver.encoder.n_made == 0


def test_one_whose_picture_cannot_be_encoded_fails_with_its_slot_and_nobody_else() -> None:
    driver = busy()
    driver.submit(request("bad", (CAT, 8), n_predict=2))
    driver.submit(request("good", (DOG, 8), n_predict=2))
    driver.step()
    driver.encode(0, fails=True)
    driver.run()
    assert driver.transcripts["bad", 0].failed
    assert driver.transcripts["good", 0].finished
    assert driver.transcripts["long", 0].finished
