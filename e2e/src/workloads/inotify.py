# A watched directory: each file made there is reported. One report that was on its way at the freeze may be lost
# (CRIU keeps the watch and not its queue); a second lost one is an error.
import ctypes, select, struct

libc = ctypes.CDLL(None, use_errno=True)
IN_CREATE, IN_NONBLOCK = 0x100, 0o4000
os.makedirs("/data/watched", exist_ok=True)
fd = libc.inotify_init1(IN_NONBLOCK)
check(fd >= 0 and libc.inotify_add_watch(fd, b"/data/watched", IN_CREATE) >= 0, "no inotify")
lost = 0


def names():
    found, data = [], os.read(fd, 65536)
    while data:
        size = struct.unpack_from("iIII", data)[3]
        found.append(data[16 : 16 + size].rstrip(b"\0").decode())
        data = data[16 + size :]
    return found


def step(i):
    global lost
    os.close(os.open(f"/data/watched/{i}", os.O_CREAT | os.O_WRONLY, 0o644))
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    got = names() if poll.poll(3000) else []
    if got != [str(i)]:
        lost += 1
        check(lost == 1 and got == [], f"tick {i}: the watch said {got}, {lost} reports lost")
    os.unlink(f"/data/watched/{i}")


run(step)
