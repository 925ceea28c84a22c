# An flock and a POSIX record lock, held for ever: nobody else may get them.
import fcntl

whole = os.open("/data/flock", os.O_RDWR | os.O_CREAT, 0o644)
fcntl.flock(whole, fcntl.LOCK_EX)
record = os.open("/data/record", os.O_RDWR | os.O_CREAT, 0o644)
os.ftruncate(record, 100)
fcntl.lockf(record, fcntl.LOCK_EX, 10, 20)


def others_get_it():
    # Exit code: 1 the flock was free, 2 the record lock, 3 the bytes beside it were locked.
    flock = os.open("/data/flock", os.O_RDWR)
    try:
        fcntl.flock(flock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return 1
    except BlockingIOError:
        pass
    again = os.open("/data/record", os.O_RDWR)
    try:
        fcntl.lockf(again, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 25)
        return 2
    except (BlockingIOError, PermissionError):
        pass
    try:
        fcntl.lockf(again, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)
        return 0
    except (BlockingIOError, PermissionError):
        return 3


def step(i):
    if i % 5:
        return
    child = os.fork()
    if child == 0:
        os._exit(others_get_it())
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    check(code == 0, f"tick {i}: a lock is not what it was ({code})")


run(step)
