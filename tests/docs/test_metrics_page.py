"""Every metric is documented, and as the rooms have it."""

from tests.docs import metrics_page


def test_the_page_is_current():
    written = metrics_page.PAGE.read_text(encoding="utf-8")
    assert written == metrics_page.metrics_page(), "run: python -m tests.docs.metrics_page"


def test_names_are_of_one_kind():
    found = metrics_page.measures()
    assert len({each.name for each in found}) == len(found) > 60
    for each in found:
        assert each.name.startswith("sealtape_")
        assert f"`{each.name}`" in metrics_page.PAGE.read_text()
        assert not {"user", "session", "source", "statement"} & set(each.labels)
