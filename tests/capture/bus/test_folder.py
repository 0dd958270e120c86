import os

from sealtape.capture.bus import check_bus, open_bus, prepare_bus


def levels(checks):
    return [check.level for check in checks]


async def test_a_folder_is_made_once(tmp_path):
    assert await prepare_bus("dir:a/bus?partitions=2", tmp_path) == [
        f"made the bus {tmp_path / 'a/bus'}"
    ]
    assert await prepare_bus("dir:a/bus?partitions=2", tmp_path) == []
    assert levels(await check_bus("dir:a/bus?partitions=2", tmp_path))[0] == "ok"


async def test_what_is_not_there_is_not_made_by_looking(tmp_path):
    (check,) = await check_bus("dir:bus", tmp_path)
    assert check.level == "warning"
    assert "setup" in check.hint
    assert not (tmp_path / "bus").exists()


async def test_another_number_of_partitions_is_an_error(tmp_path):
    await prepare_bus("dir:bus?partitions=2", tmp_path)
    (check,) = await check_bus("dir:bus?partitions=3", tmp_path)
    assert check.level == "error"
    assert "created with 2" in check.message


async def test_a_url_that_means_nothing_is_an_error(tmp_path):
    (check,) = await check_bus("carrier-pigeon:bus", tmp_path)
    assert check.level == "error"
    assert check.hint


async def test_a_folder_that_others_may_read_is_a_warning(tmp_path):
    await open_bus("dir:bus", tmp_path).close()
    (tmp_path / "bus").chmod(0o755)
    messages = {check.message: check.level for check in await check_bus("dir:bus", tmp_path)}
    assert messages[f"{tmp_path / 'bus'} has mode 755: others on this host may read or list it."]
    assert "warning" in messages.values()


async def test_a_folder_that_we_may_not_write_is_an_error(tmp_path, monkeypatch):
    await open_bus("dir:bus", tmp_path).close()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    assert levels(await check_bus("dir:bus", tmp_path))[0] == "error"
