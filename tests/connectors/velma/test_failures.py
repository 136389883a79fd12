"""Sessions that fail, each in its own way: what the error says."""

import pytest
from websockets.datastructures import Headers

from connectors.velma.failures import retry_after_s
from moderation.refusals import classify
from velma_faults import FAULTS
from velma_services import client_of


@pytest.mark.net
@pytest.mark.parametrize("name", FAULTS)
async def test_what_an_error_says(velma, name):
    fault = FAULTS[name]
    failure = await fault.meet(velma, client_of)
    assert {fact: getattr(failure, fact) for fact in fault.says} == fault.says
    assert failure.scope is classify(failure).scope
    assert failure.__cause__ is None


AT_7_26 = {"Date": "Wed, 21 Oct 2037 07:26:30 GMT"}


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": " 120 "}, 120.0),
        *[
            ({"Retry-After": said} | AT_7_26, None)
            for said in ("", "soon", "inf", "-7", "1.5", "²", "21 Oct", "Wed, 99 Oct 2037 07:28:00 GMT")
        ],
        ({"Retry-After": "Wed, 21 Oct 2037 07:28:00 GMT"} | AT_7_26, 90.0),
        ({"Retry-After": "Wednesday, 21-Oct-37 07:28:00 GMT"} | AT_7_26, 90.0),
        ({"Retry-After": "Wed, 21 Oct 2037 07:26:00 GMT"} | AT_7_26, 0.0),
        ({"Retry-After": "Wed, 21 Oct 2037 07:28:00 GMT"}, None),
        ({"Retry-After": "Wed, 21 Oct 2037 07:28:00 GMT", "Date": "today"}, None),
        ({"Retry-After": "Wed, 21 Oct 2037 07:28:00 -0000"} | AT_7_26, None),
    ],
)
def test_how_long_a_service_asks_to_be_left_alone(headers, seconds):
    assert retry_after_s(Headers(headers)) == seconds
