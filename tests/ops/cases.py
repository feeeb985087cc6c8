"""Every case, family by family."""

from tests.ops import (
    cases_attention,
    cases_elementwise,
    cases_quantised,
    cases_reductions,
    cases_resize,
    cases_selection,
    cases_shape,
    cases_windows,
)

CASES = [
    *cases_attention.CASES,
    *cases_elementwise.CASES,
    *cases_quantised.CASES,
    *cases_reductions.CASES,
    *cases_resize.CASES,
    *cases_selection.CASES,
    *cases_shape.CASES,
    *cases_windows.CASES,
]
