"""Every case, family by family."""

from tests.ops import cases_elementwise

CASES = [*cases_elementwise.CASES]
