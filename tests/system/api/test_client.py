"""`Client`, member by member."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import Future
from pathlib import Path

import pytest

import enginery as ipp
from tests.system.api.held import PATIENCE_S, Gate, each

# ---------------------------------------------------------------- the constructor


def test_a_client_is_made_from_a_path_a_file_keyword_or_a_dictionary(rc: ipp.Client) -> None:
    content = json.loads(Path(rc.connection_file).read_text())
    for arguments, keywords in (
        ((rc.connection_file,), {}),
        ((Path(rc.connection_file),), {}),
        ((), {"url_file": rc.connection_file}),
        ((content,), {}),
        ((), {}),  # the only one that runs
    ):
        with ipp.Client(*arguments, timeout=5, **keywords) as client:
            assert client.ids == rc.ids
            assert client[0].apply_sync(pow, 2, 3) == 8


def test_a_client_is_made_from_the_name_of_a_cluster(rc: ipp.Client) -> None:
    with ipp.Client(rc.name) as client:
        assert client.ids == rc.ids
    with ipp.Client(cluster_id=rc.cluster.cluster_id) as client:
        assert client.ids == rc.ids


def test_former_keywords_are_taken_and_kept(rc: ipp.Client) -> None:
    with ipp.Client(
        rc.connection_file, debug=True, ipython_dir="/somewhere", context=None, cluster=rc.cluster
    ) as client:
        assert client.debug is True
        assert client.former_keywords["ipython_dir"] == "/somewhere"
        assert client.cluster is rc.cluster
        assert client.profile == "default"


def test_no_such_file_is_an_oserror_at_once(rc: ipp.Client, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"nothing\.json"):
        ipp.Client(tmp_path / "nothing.json")
    with pytest.raises(ipp.ClusterNotFound, match="enginery start -n 4 --name no-such-cluster"):
        ipp.Client("no-such-cluster")


def test_a_url_is_refused(rc: ipp.Client) -> None:
    with pytest.raises(ValueError, match="is a URL"):
        ipp.Client("tcp://127.0.0.1:5000")


def test_an_incomplete_file_is_a_valueerror_with_a_sentence(rc: ipp.Client, tmp_path: Path) -> None:
    broken = tmp_path / "client.json"
    for text in ("{", "{}", "[1, 2]", '{"cluster": "x"}'):
        broken.write_text(text)
        broken.chmod(0o600)
        with pytest.raises(ipp.ConnectionFileError, match="the connection file") as caught:
            ipp.Client(broken)
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, OSError)


@pytest.mark.parametrize("named", [3, b"name", ["a"]])
def test_what_names_no_cluster_is_a_typeerror(named: object) -> None:
    with pytest.raises(TypeError, match="a cluster is named by"):
        ipp.Client(named)


@pytest.mark.parametrize("keyword", ["sshserver", "sshkey", "password", "paramiko"])
def test_tunnels_are_refused(rc: ipp.Client, keyword: str) -> None:
    with pytest.raises(ValueError, match=keyword):
        ipp.Client(rc.connection_file, **{keyword: "x"})


def test_the_client_of_a_cluster_knows_it(rc: ipp.Client) -> None:
    assert rc.cluster.n == 2
    assert rc.name == rc.cluster.name
    assert Path(rc.connection_file).is_file()


# ---------------------------------------------------------------- attributes


def test_ids_are_a_sorted_copy(rc: ipp.Client) -> None:
    assert rc.ids == [0, 1]
    rc.ids.append(7)
    assert rc.ids == [0, 1]


def test_len_and_iteration(rc: ipp.Client) -> None:
    assert len(rc) == 2
    views = list(rc)
    assert views == [rc[0], rc[1]]
    assert [view.targets for view in views] == [0, 1]


def test_the_repr_is_stable(rc: ipp.Client) -> None:
    assert repr(rc) == f"<Client of {rc.name!r}: 2 engines>"


def test_block_is_the_default_of_new_views(another: ipp.Client) -> None:
    assert another.block is False
    plain = another[0]
    another.block = True
    assert another[1].block is True
    assert another.load_balanced_view().apply(pow, 2, 2) == 4
    assert another.apply(pow, (2, 3)) == 8
    assert plain.block is False


def test_keys_of_the_connection(rc: ipp.Client, another: ipp.Client) -> None:
    keys = another.curve_serverkey, another.curve_publickey, another.curve_secretkey
    assert all(isinstance(key, (str, bytes)) and len(key) == 40 for key in keys)
    assert len(set(keys)) == 3


def test_history_has_the_ids_in_the_order_of_submission(another: ipp.Client) -> None:
    assert another.history == []
    first = another[0].apply_async(pow, 1, 1)
    second = another[:].apply_async(pow, 1, 2)
    third = another.load_balanced_view().map_async(abs, [1, 2, 3])
    third.wait(PATIENCE_S)
    assert another.history == [*first.msg_ids, *second.msg_ids, *third.msg_ids]
    another.history.clear()  # a copy
    assert len(another.history) == 6


def test_the_history_has_a_limit(rc: ipp.Client) -> None:
    with ipp.Client(rc.connection_file, history_limit=3) as client:
        assert client.history_limit == 3
        results = [client[0].apply_async(pow, 2, n) for n in range(5)]
        assert client.history == [ar.msg_ids[0] for ar in results[2:]]
        assert [ar.get(timeout=PATIENCE_S) for ar in results] == [1, 2, 4, 8, 16]


def test_outstanding_is_what_has_not_ended(another: ipp.Client, gate: Gate) -> None:
    assert another.outstanding == set()
    ar = gate.hold(another[:])
    assert another.outstanding == set(ar.msg_ids)
    gate.open()
    ar.get(timeout=PATIENCE_S)
    assert another.outstanding == set()


def test_results_and_metadata_by_id(another: ipp.Client) -> None:
    ar = another[1].apply_async(pow, 3, 2)
    failed = another[0].apply_async(int, "x")
    another.wait(timeout=PATIENCE_S)
    (good,), (bad,) = ar.msg_ids, failed.msg_ids
    assert another.results[good] == 9
    assert isinstance(another.results[bad], ValueError)
    assert another.metadata[good]["engine_id"] == another.metadata[good].engine_id == 1
    assert another.metadata[bad].status == "error"
    assert set(another.results) == set(another.metadata) == {good, bad}
    assert len(another.results) == 2
    assert good in another.results
    assert "no-such" not in another.results
    with pytest.raises(KeyError):
        another.results["no-such"]
    del another.results[good]
    assert good not in another.results


def test_a_session_is_there(rc: ipp.Client) -> None:
    assert rc.session is not None
    assert isinstance(rc.debug, bool)
    assert rc.profile == "default"


# ---------------------------------------------------------------- views


def test_all_forms_of_an_index(rc: ipp.Client) -> None:
    import numpy

    assert rc[0].targets == 0
    assert rc[-1] is rc[1]
    assert rc[numpy.int64(1)] is rc[1]
    for key in ((0, 1), [0, 1], range(2), slice(None), slice(0, 2), [0, -1], numpy.arange(2)):
        assert rc[key] is rc[:]
        assert rc[key].targets == [0, 1]
    assert rc[1, 0].targets == [1, 0]
    assert rc[1, 0] is not rc[0, 1]
    assert rc[::-1].targets == [1, 0]
    assert rc[1:].targets == [1]


@pytest.mark.parametrize("key", ["all", "0", None, 1.0, {0: 1}, {0, 1}, True, [0, "a"], [None]])
def test_an_index_of_another_type_is_a_typeerror(rc: ipp.Client, key: object) -> None:
    with pytest.raises(TypeError, match=r"engine id"):
        rc[key]


@pytest.mark.parametrize("key", [2, -3, [0, 2], [2], [-3], range(3)])
def test_an_unknown_engine_is_an_indexerror_and_a_keyerror(rc: ipp.Client, key: object) -> None:
    with pytest.raises(ipp.NoSuchEngine, match="there is no engine") as caught:
        rc[key]
    assert isinstance(caught.value, IndexError)
    assert isinstance(caught.value, KeyError)


def test_an_index_of_nothing_is_an_indexerror(rc: ipp.Client) -> None:
    for key in ([], slice(5, 9), ()):
        with pytest.raises(IndexError):
            rc[key]


def test_direct_views(rc: ipp.Client) -> None:
    assert rc.direct_view() is rc.direct_view("all") is rc.view()
    assert rc.direct_view().targets == "all"
    assert len(rc.direct_view()) == 2
    assert repr(rc.direct_view()) == "<DirectView all>"
    assert rc.direct_view(-1) is rc[1]
    flagged = rc.direct_view(0, block=True, label="flagged", track=True)
    assert (flagged.block, flagged.label, flagged.track) == (True, "flagged", True)
    assert flagged is not rc[0]
    assert flagged is rc.direct_view(0, block=True, label="flagged", track=True)
    with pytest.raises(KeyError, match="no flag"):
        rc.direct_view(0, colour="blue")
    with pytest.raises(KeyError, match="load-balanced"):
        rc.direct_view(0, follow=[])


def test_load_balanced_views(rc: ipp.Client) -> None:
    assert rc.load_balanced_view().targets is None
    assert rc.load_balanced_view("all") is rc.load_balanced_view()
    assert rc.load_balanced_view(1).targets == [1]
    assert rc.load_balanced_view([0, -1]).targets == [0, 1]
    assert rc.load_balanced_view(slice(1)).targets == [0]
    assert repr(rc.load_balanced_view([0, 1])) == "<LoadBalancedView [0,1]>"
    assert repr(rc.load_balanced_view()) == "<LoadBalancedView None>"
    assert len(rc.load_balanced_view()) == 2
    assert len(rc.load_balanced_view(1)) == 1
    assert rc.load_balanced_view(retries=3).retries == 3
    with pytest.raises(IndexError):
        rc.load_balanced_view([0, 5])


def test_broadcast_views(rc: ipp.Client) -> None:
    view = rc.broadcast_view()
    assert isinstance(view, ipp.BroadcastView)
    assert isinstance(view, ipp.DirectView)
    assert view.targets == [0, 1]  # frozen
    assert view.is_coalescing is False
    assert view is rc.broadcast_view()
    together = rc.broadcast_view(is_coalescing=True)
    assert together.is_coalescing is True
    assert together is not view
    assert repr(rc.broadcast_view([1, 0])) == "<BroadcastView [1,0]>"


def test_activate_gives_a_blocking_view_of_its_own(rc: ipp.Client) -> None:
    view = rc.activate()
    assert view.block is True
    assert view.targets == "all"
    assert view is not rc.direct_view()
    assert rc.direct_view().block is False
    assert rc.activate([1], "_one").apply(pow, 2, 2) == [4]


def test_the_executor(rc: ipp.Client) -> None:
    pids = rc[:].apply_sync(os.getpid)
    with rc.executor() as executor:
        assert isinstance(executor, ipp.ViewExecutor)
        assert executor._max_workers == 2
        assert executor.view is rc.load_balanced_view()
        future = executor.submit(pow, 2, 5)
        assert isinstance(future, Future)
        assert future.result(PATIENCE_S) == 32
        assert list(executor.map(pow, [2, 3], [3, 2])) == [8, 9]
        with rc.executor([1]) as of_one:
            assert of_one.submit(os.getpid).result(PATIENCE_S) == pids[1]
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(pow, 2, 2)
    assert rc[:].apply_sync(pow, 1, 1) == [1, 1]  # the engines stay


# ---------------------------------------------------------------- apply


def test_the_whole_table_of_apply(rc: ipp.Client) -> None:
    pids = rc[:].apply_sync(os.getpid)
    ar = rc.apply(os.getpid)
    assert isinstance(ar, ipp.AsyncResult)
    assert ar.get(timeout=PATIENCE_S) in pids
    assert rc.apply(os.getpid, targets=1, block=True) == pids[1]
    assert rc.apply(os.getpid, targets=[1], block=True) == [pids[1]]
    assert rc.apply(os.getpid, targets=[1, 0], block=True) == pids[::-1]
    assert rc.apply(os.getpid, targets="all", block=True) == pids
    assert rc.apply(os.getpid, targets=[1], balanced=True, block=True) == pids[1]
    assert rc.apply(os.getpid, targets=None, balanced=False, block=True) == pids
    assert rc.apply(int, ["12"], {"base": 8}, targets=0, block=True, track=True, label="x") == 10


@pytest.mark.parametrize("keyword", ["after", "follow", "timeout"])
def test_dependencies_need_a_balanced_call(rc: ipp.Client, keyword: str) -> None:
    done = rc[0].apply_async(pow, 1, 1)
    value = 1.0 if keyword == "timeout" else done
    for targets in (0, [0, 1], "all"):
        with pytest.raises(ValueError, match=f"{keyword}= needs a call that is balanced"):
            rc.apply(pow, (1, 1), targets=targets, **{keyword: value})


def test_send_apply_message_never_waits(rc: ipp.Client) -> None:
    ar = rc.send_apply_message(pow, (2, 4), targets=[0, 1])
    assert isinstance(ar, ipp.AsyncResult)
    assert ar.get(timeout=PATIENCE_S) == [16, 16]
    with pytest.raises(TypeError, match="block"):
        rc.send_apply_message(pow, (2, 4), block=True)


# ---------------------------------------------------------------- waiting


def test_wait_says_whether_it_is_over(another: ipp.Client, gate: Gate) -> None:
    assert another.wait() is True
    ar = gate.hold(another[0])
    done = another[1].apply_async(pow, 2, 2)
    assert another.wait(done, timeout=PATIENCE_S) is True
    for jobs in (None, ar, ar.msg_ids, ar.msg_ids[0], 0, [0, 1], [ar, done], {*ar.msg_ids}):
        assert another.wait(jobs, timeout=0) is False
    assert another.wait([1, done, *done.msg_ids], timeout=0) is True
    plain: Future[int] = Future()
    assert another.wait([plain, done], timeout=0) is False
    plain.set_result(1)
    assert another.wait([plain, done], timeout=0) is True
    gate.open()
    assert another.wait(timeout=None) is True
    assert another.outstanding == set()


def test_wait_interactive_draws_a_bar(
    another: ipp.Client, gate: Gate, capfd: pytest.CaptureFixture[str]
) -> None:
    ar = gate.hold(another[0])
    assert another.wait_interactive(ar, interval=0.01, timeout=0.05) is False
    gate.open()
    assert another.wait_interactive(ar, interval=0.05, timeout=PATIENCE_S) is True
    assert another.wait_interactive() is True


def test_wait_for_engines(rc: ipp.Client, another: ipp.Client) -> None:
    assert rc.wait_for_engines() is None  # as many as its cluster was made with
    assert another.wait_for_engines(2, timeout=1) is None
    assert another.wait_for_engines(n=1, interactive=True, widget=False) is None
    with pytest.raises(TimeoutError, match="2 of 3 engines are there"):
        another.wait_for_engines(3, timeout=0.01)
    with pytest.raises(TypeError, match="needs a number"):
        another.wait_for_engines()
    for bad in (1.5, "2", True):
        with pytest.raises(TypeError, match="whole number"):
            another.wait_for_engines(bad)
    with pytest.raises(ValueError, match="negative"):
        another.wait_for_engines(-1)


def test_wait_for_engines_as_a_future(rc: ipp.Client) -> None:
    with ipp.Client(rc.connection_file) as client:
        now = client.wait_for_engines(2, block=False)
        assert isinstance(now, Future)
        assert now.result(PATIENCE_S) is None
        never = client.wait_for_engines(3, block=False)
        assert not never.done()
    with pytest.raises(ipp.ClientClosed):
        never.result(PATIENCE_S)


def test_spinning_is_silent_and_does_nothing(rc: ipp.Client) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rc.spin() is None
        assert rc.spin_thread(0.1) is None
        assert rc.stop_spin_thread() is None


# ---------------------------------------------------------------- the end


def test_a_closed_client_says_so(rc: ipp.Client) -> None:
    client = ipp.Client(rc.connection_file)
    view, lview = client[0], client.load_balanced_view()
    client.close()
    client.close(linger=1)
    assert repr(client) == f"<Client of {rc.name!r}: closed>"
    for use in (
        lambda: view.apply_async(pow, 1, 1),
        lambda: view.push({"a": 1}),
        lambda: lview.map_async(abs, [1]),
        lambda: client.ids,
        lambda: client[0],
        client.queue_status,
        client.hub_history,
        client.clear,
        lambda: client.abort("3fa9c01b-1"),
        lambda: client.send_signal("SIGUSR1"),
        lambda: client.wait_for_engines(1),
    ):
        with pytest.raises(RuntimeError, match="closed"):
            use()


def test_what_waits_when_a_client_is_closed_ends(rc: ipp.Client, gate: Gate) -> None:
    client = ipp.Client(rc.connection_file)
    held = gate.hold(client[0])
    thread = threading.Thread(target=client.close)
    thread.start()
    with pytest.raises(ipp.RemoteError, match="closed"):
        held.get(timeout=PATIENCE_S)
    thread.join()
    gate.open()
    # The task goes on, and others can have its value.
    assert rc.get_result(held.msg_ids[0]).get(timeout=PATIENCE_S) == "through"


def test_a_client_is_a_context(rc: ipp.Client) -> None:
    with ipp.Client(rc.connection_file) as client:
        assert client[:].apply_sync(abs, -1) == each(client, 1)
    with pytest.raises(ipp.ClientClosed):
        client[:]


def test_a_forked_child_cannot_use_it(rc: ipp.Client) -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            rc[0].apply_async(pow, 1, 1)
        except ipp.ForkedClientError:
            os.write(writing, b"refused")
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        assert pipe.read() == b"refused"
    os.waitpid(pid, 0)
    assert rc[0].apply_sync(pow, 2, 2) == 4


def test_a_client_in_another_process(rc: ipp.Client) -> None:
    script = f"import enginery as ipp; rc = ipp.Client({rc.name!r}); print(rc[:].apply_sync(abs, -5))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "[5, 5]\n"
