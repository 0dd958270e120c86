import pytest

from sealtape.capture.metrics import Histogram, Measure, Sheet
from sealtape.capture.metrics.vitals import written
from tests.capture.metrics.http import samples

GAUGE = Measure("sealtape_x", "gauge", "How much x there is.", ("kind",))
COUNTER = Measure("sealtape_y_total", "counter", "How often y came.")
HISTOGRAM = Measure("sealtape_z_seconds", "histogram", "How long z took.")


def test_a_sheet_is_written_as_prometheus_reads_it():
    sheet = Sheet([GAUGE, COUNTER, HISTOGRAM], worker="3")
    sheet.put(GAUGE, 1.5, kind="a")
    sheet.put(GAUGE, True, kind='b"\n')
    sheet.put(COUNTER, 7)
    times = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 2.0):
        times.observe(value)
    times.observe(0.2, 2)
    sheet.spread(HISTOGRAM, times)
    text = written(sheet.families()).decode()
    assert samples(text) == {
        ("sealtape_x", ("kind", "a"), ("worker", "3")): 1.5,
        ("sealtape_x", ("kind", 'b"\n'), ("worker", "3")): 1,
        ("sealtape_y_total", ("worker", "3")): 7,
        ("sealtape_z_seconds_bucket", ("le", "0.1"), ("worker", "3")): 2,
        ("sealtape_z_seconds_bucket", ("le", "1.0"), ("worker", "3")): 5,
        ("sealtape_z_seconds_bucket", ("le", "+Inf"), ("worker", "3")): 6,
        ("sealtape_z_seconds_sum", ("worker", "3")): pytest.approx(3.05),
        ("sealtape_z_seconds_count", ("worker", "3")): 6,
    }
    assert "# HELP sealtape_y_total How often y came.\n# TYPE sealtape_y_total counter" in text


def test_a_metric_without_a_value_is_listed():
    text = written(Sheet([GAUGE, COUNTER, HISTOGRAM]).families()).decode()
    assert [line for line in text.splitlines() if not line.startswith("#")] == []
    assert text.count("# TYPE") == 3


@pytest.mark.parametrize("labels", [{}, {"kind": "a", "user": "ada"}, {"user": "ada"}])
def test_a_label_nobody_declared_is_refused(labels):
    with pytest.raises(ValueError, match="sealtape_x"):
        Sheet([GAUGE]).put(GAUGE, 1, **labels)
    with pytest.raises(ValueError, match="sealtape_z"):
        Sheet([HISTOGRAM]).spread(HISTOGRAM, Histogram(), kind="a")


def test_buckets_grow_and_end_with_all():
    times = Histogram((1.0, 2.0))
    assert list(times.buckets()) == [("1.0", 0), ("2.0", 0), ("+Inf", 0)]
    for value in (0, 1, 1.5, 2, 9):
        times.observe(value)
    assert list(times.buckets()) == [("1.0", 2), ("2.0", 4), ("+Inf", 5)]
    assert times.total == 13.5
