"""The pages that are written by a script say what the script says now."""

from tools import write_diffusion_page


def test_the_page_of_the_diffusion_core_is_what_the_docstrings_say():
    """If not: python -m tools.write_diffusion_page."""
    assert write_diffusion_page.PAGE.read_text() == write_diffusion_page.page()


def test_every_module_of_the_diffusion_core_has_its_section():
    listed = [name for names in write_diffusion_page.SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(
        path.stem for path in write_diffusion_page.CODE.glob("[a-z]*.py")
    )
