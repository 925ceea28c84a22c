# A file that only its descriptor still knows, and one whose name was removed while another link is left.
gone = os.open("/data/gone", os.O_RDWR | os.O_CREAT, 0o644)
os.unlink("/data/gone")
moved = os.open("/data/first", os.O_RDWR | os.O_CREAT, 0o644)
os.link("/data/first", "/data/second")
os.unlink("/data/first")


def expect(fd, i, what):
    want = b"".join(n.to_bytes(8, "little") for n in range(1, i + 1))
    check(os.pread(fd, len(want) + 8, 0) == want, f"tick {i}: {what} has other contents than were written")


def step(i):
    for fd, what in ((gone, "the unlinked file"), (moved, "the file under another name")):
        expect(fd, i - 1, what)
        os.pwrite(fd, i.to_bytes(8, "little"), 8 * (i - 1))
        expect(fd, i, what)
    with open("/data/second", "rb") as f:
        check(len(f.read()) == 8 * i, f"tick {i}: the other link is another file")
    check(not os.path.exists("/data/gone"), "the unlinked file has its name again")


run(step)
