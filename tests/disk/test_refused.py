"""Names and densities that there are no files of."""

from densities import gaussian
from refusals import assert_refused, refusals

import numpyro_diffusion as nd
from numpyro_diffusion.errors import UnknownNameError

#: What is refused: (call, error, words of the message: rule, value, remedy).
REFUSED = {
    "unknown pretrained density": (lambda: nd.load_pretrained("rnig"), UnknownNameError, r"'rnig'. There are .*ring"),
    "card of an unknown density": (lambda: nd.pretrained_card("../x"), UnknownNameError, r"no pretrained density"),
    "save a mixture": (lambda: nd.save(gaussian(), "x"), TypeError, "only trained leaves"),
}  # fmt: skip


@refusals(REFUSED)
def test_refused(call, error, words):
    assert_refused(call, error, words)
