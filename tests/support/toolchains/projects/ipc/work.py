"""Each way in which Python's processes are started and talk: semaphores, queues, shared memory, managers."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import shared_memory


def add(lock, total, queue) -> None:  # type: ignore[no-untyped-def]
    for _ in range(100):
        with lock:
            total.value += 1
    queue.put(1)


def main() -> None:
    for method in ("fork", "spawn", "forkserver"):
        context = multiprocessing.get_context(method)
        lock, total, queue = context.Semaphore(1), context.Value("i", 0, lock=False), context.Queue()
        workers = [context.Process(target=add, args=(lock, total, queue)) for _ in range(4)]
        for worker in workers:
            worker.start()
        assert sum(queue.get(timeout=60) for _ in workers) == 4
        for worker in workers:
            worker.join()
        assert total.value == 400
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            assert list(pool.map(abs, [-1, -2])) == [1, 2]
    block = shared_memory.SharedMemory(create=True, size=4096)
    block.buf[0] = 1
    block.close()
    block.unlink()
    with multiprocessing.Manager() as manager:
        manager.dict()["x"] = 1


if __name__ == "__main__":
    main()
