"""A plugin of pytest for the student edition: networks are tested layer by layer, and the first that is wrong is told.

What comes behind it in the same network is not tried, for it would fail by the same mistake. Each failure is one line,
without a traceback, and says where in the student's code it arose. Loaded by the student edition's `pyproject.toml`.
"""

import pytest

from kit.handin.smoke_test import sentence
from kit.language import tr

NETWORKS = ["residual_block", "generator", "discriminator"]
_wrong = {}  # network → the test by which it was found to be wrong


def _network(item):
    return next((name for name in NETWORKS if name in item.name), None)


def _in_words(name):
    return name.removeprefix("test_").replace("_", " ")


def pytest_runtest_setup(item):
    if _network(item) in _wrong:
        pytest.skip(tr("mend this first: {test}", test=_wrong[_network(item)]))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed and call.excinfo is not None:
        report.longrepr = sentence(call.excinfo.value)
        if _network(item):
            _wrong.setdefault(_network(item), _in_words(item.name))
