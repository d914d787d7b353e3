"""A mounted directory that behaves as one of an NFS client does, where no NFS is to be had.

`python nfs_like.py BACKING MOUNTPOINT` mounts it, says `ready`, and ends when it is unmounted. The backing directory is
the server's; each mount of it is a client, with caches of its own. It takes root, /dev/fuse and Linux 5.1, and nothing
else: it speaks the kernel's protocol itself (linux/fuse.h), as a file handle has to mean the same file wherever that is
renamed to, and bindings of libfuse that can be installed without a compiler know paths only.

What it has of a client of NFSv3 or NFSv4.0 with the default mount options:

- Silly renames: a file that is open here and is removed, or replaced by a rename, becomes `.nfs...` in its directory
  until it is closed; to remove that is EBUSY, to remove its directory ENOTEMPTY (Linux, fs/nfs/unlink.c).
- File handles: what another client has removed is ESTALE for who has it open (RFC 1813, 2.6; RFC 7530, 4.2.3). What
  another has renamed is still the same, under whatever name. A call that has a path is tried again after ESTALE, as
  the kernel does for each file system, and then looks afresh.
- Attributes are believed for 3 s, those of directories for 30 s, and as long are names that were looked up there, also
  that there was none (nfs(5), acregmin, acdirmin, lookupcache=all). They are looked at afresh, and names are forgotten
  if the directory has changed, when it is opened (nfs(5), "Close-to-open cache consistency") and when this client
  changes something in it (RFC 1813, 2.6, wcc_data; RFC 7530, 5.8.1.4 and change_info4). To open with O_PATH is not to
  open: nothing is asked then (Linux, fs/nfs/dir.c, nfs_lookup_verify_inode: LOOKUP_OPEN).
- No O_TMPFILE, and no locks, as of a mount whose server has none (flock(2), fcntl(2): ENOLCK). NFS proper would make
  sockets, but nobody on another host could connect: here, as on CIFS and 9p, they can't be made.

Changes are told by time stamps that are never the same twice, as good as a change attribute of NFSv4. With `--tick
SECONDS` they are as coarse as that, which NFSv3 has to do with: those of ext4 and XFS were 4 ms or 10 ms up to Linux
6.12 (Linux, Documentation/filesystems/multigrain-ts.rst).

It differs where the kernel doesn't tell why it looks a name up: `mkdir` of a directory that is remembered here, and
was removed by another client, is EEXIST; that of a file is looked at afresh more often.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import signal
import stat
import struct
import sys
import time
from collections.abc import Callable

FILE_SECONDS, DIRECTORY_SECONDS = 3, 30  # acregmin, acdirmin
BUFFER, MAX_WRITE = 1 << 18, 1 << 17
MS_NOSUID, MS_NODEV, MNT_DETACH = 2, 4, 2
ATOMIC_O_TRUNC, BIG_WRITES, POSIX_LOCKS, FLOCK_LOCKS = 1 << 3, 1 << 5, 1 << 1, 1 << 10
NEW = os.O_CREAT | os.O_EXCL
HEADER = struct.Struct("<IIQQIIIHH")
ANSWER = struct.Struct("<IiQ")
ATTRIBUTES = struct.Struct("<6Q10I")
SETATTR = struct.Struct("<II7Q3I5I")
READ = struct.Struct("<QQIIQII")
SILLY = b".nfs"

libc = ctypes.CDLL(None, use_errno=True)


Entry = tuple[bytes, int, int]  # name, inode, type


class Node:
    """A file handle: a file that this client knows. `names` is what it remembers of a directory, `None` for no file."""

    def __init__(self, descriptor: int, status: os.stat_result) -> None:
        self.descriptor = descriptor
        self.number = 0
        self.status = status
        self.is_directory = stat.S_ISDIR(status.st_mode)
        self.asked = time.monotonic()
        self.names: dict[bytes, Node | None] = {}
        self.opened = 0
        self.lookups = 0
        self.silly: tuple[Node, bytes] | None = None
        self.listing: tuple[tuple[int, int], list[Entry]] | None = None

    @property
    def path(self) -> str:
        return f"/proc/self/fd/{self.descriptor}"


class Client:
    """One mount. What the kernel asks for is a method of the name that linux/fuse.h has for it."""

    def __init__(self, backing: str, tick: float) -> None:
        self.tick = int(tick * 10**9)
        self.nodes: dict[int, Node] = {}
        self.by_inode: dict[tuple[int, int], Node] = {}
        self.numbers = 0
        self.server = os.open(backing, os.O_RDONLY | os.O_DIRECTORY)
        self.root = self.node(os.open(backing, os.O_PATH | os.O_DIRECTORY))
        self.root.lookups = 1
        self.listings: dict[int, list[Entry]] = {}
        self.handle = 0
        self.again: set[int] = set()  # threads whose call the kernel tries again

    # What is known, and how old it is.

    def node(self, descriptor: int) -> Node:
        """That of a file just opened with O_PATH, which is the node's then."""
        status = os.fstat(descriptor)
        node = self.by_inode.get((status.st_dev, status.st_ino))
        if node is None:
            self.numbers += 1
            node = Node(descriptor, status)
            node.number = self.numbers
            self.nodes[node.number] = self.by_inode[status.st_dev, status.st_ino] = node
        else:
            os.close(descriptor)
            self.learn(node, status)
        return node

    def learn(self, node: Node, status: os.stat_result) -> None:
        """Note the attributes that the server has told: if a directory has changed, its names are to be looked up."""
        if node.is_directory and self.change(status) != self.change(node.status):
            node.names.clear()
        node.status, node.asked = status, time.monotonic()

    def change(self, status: os.stat_result) -> tuple[int, int]:
        tick = self.tick or 1
        return status.st_mtime_ns // tick, status.st_ctime_ns // tick

    def ask(self, node: Node) -> None:
        """GETATTR on the wire."""
        status = os.fstat(node.descriptor)
        if status.st_nlink == 0:
            node.names.clear()
            raise OSError(errno.ESTALE, "removed by another client")
        self.learn(node, status)

    def believe(self, node: Node) -> None:
        if time.monotonic() - node.asked > (DIRECTORY_SECONDS if node.is_directory else FILE_SECONDS):
            self.ask(node)

    def look_up(self, parent: Node, name: bytes) -> Node | None:
        """LOOKUP on the wire."""
        try:
            node = self.node(os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=self.live(parent).descriptor))
        except FileNotFoundError:
            node = None
        parent.names[name] = node
        return node

    def live(self, node: Node) -> Node:
        if os.fstat(node.descriptor).st_nlink == 0:
            raise OSError(errno.ESTALE, "removed by another client")
        return node

    def changing(self, parent: Node, *names: bytes) -> Changing:
        return Changing(self, parent, names)

    def forget(self, node: Node, lookups: int) -> None:
        node.lookups -= lookups
        if len(self.nodes) > 20_000:  # a client has memory for so many
            for each in self.nodes.values():
                each.names.clear()
            for number, each in list(self.nodes.items()):
                if each.lookups <= 0 and not each.opened:
                    del self.nodes[number], self.by_inode[each.status.st_dev, each.status.st_ino]
                    os.close(each.descriptor)

    # Answers.

    def attributes(self, node: Node) -> bytes:
        s = node.status
        times = (s.st_atime_ns, s.st_mtime_ns, s.st_ctime_ns)
        return ATTRIBUTES.pack(
            *(s.st_ino, s.st_size, s.st_blocks, *(each // 10**9 for each in times)),
            *(each % 10**9 for each in times),
            *(s.st_mode, s.st_nlink, s.st_uid, s.st_gid, s.st_rdev & 0xFFFFFFFF, s.st_blksize, 0),
        )

    def entry(self, node: Node) -> bytes:
        """The kernel is to ask each time: what is remembered is here."""
        node.lookups += 1
        return struct.pack("<4QII", node.number, 0, 0, 0, 0, 0) + self.attributes(node)

    def opened(self, descriptor: int) -> bytes:
        return struct.pack("<QII", descriptor, 0, 0)

    # Requests: of the node, the caller's numbers, and the rest of the message.

    def lookup(self, node: Node, caller: Caller, body: bytes) -> bytes:
        name = body[:-1]
        found: Node | None
        if caller.thread in self.again:
            found = self.look_up(node, name)
        else:
            self.believe(node)
            found = node.names[name] if name in node.names else self.look_up(node, name)
            if found is not None and not found.is_directory and not os.fstat(found.descriptor).st_nlink:
                found = self.look_up(node, name)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such name")
        return self.entry(found)

    def getattr(self, node: Node, caller: Caller, body: bytes) -> bytes:
        self.believe(node)
        return struct.pack("<QII", 0, 0, 0) + self.attributes(node)

    def setattr(self, node: Node, caller: Caller, body: bytes) -> bytes:
        (valid, _, _, size, _, atime, mtime, _, atime_ns, mtime_ns, _, mode, _, uid, gid, _) = (
            struct.unpack_from("<IIQQQQQQIIIIIIII", body)
        )  # fmt: skip
        self.ask(node)
        if valid & 1:
            os.chmod(node.path, stat.S_IMODE(mode))
        if valid & 6:
            os.chown(node.path, uid if valid & 2 else -1, gid if valid & 4 else -1)
        if valid & 8:
            os.truncate(node.path, size)
        if valid & (16 | 32 | 128 | 256):
            now, status = time.time_ns(), os.fstat(node.descriptor)
            new = [status.st_atime_ns, status.st_mtime_ns]
            if valid & 16:
                new[0] = now if valid & 128 else atime * 10**9 + atime_ns
            if valid & 32:
                new[1] = now if valid & 256 else mtime * 10**9 + mtime_ns
            os.utime(node.path, ns=(new[0], new[1]))
        names = dict(node.names)
        self.ask(node)
        node.names = names  # this has changed none
        return struct.pack("<QII", 0, 0, 0) + self.attributes(node)

    def readlink(self, node: Node, caller: Caller, body: bytes) -> bytes:
        return os.readlink(b"", dir_fd=self.live(node).descriptor)

    def symlink(self, node: Node, caller: Caller, body: bytes) -> bytes:
        name, target, _ = body.split(b"\0")
        with self.changing(node, name):
            os.symlink(target, name, dir_fd=node.descriptor)
        return self.made(node, name, caller)

    def mknod(self, node: Node, caller: Caller, body: bytes) -> bytes:
        mode, device = struct.unpack_from("<II", body)
        name = body[16:-1]
        if stat.S_ISSOCK(mode):
            raise OSError(errno.EOPNOTSUPP, "no sockets here")
        with self.changing(node, name):
            os.mknod(name, mode, device, dir_fd=node.descriptor)
        return self.made(node, name, caller)

    def mkdir(self, node: Node, caller: Caller, body: bytes) -> bytes:
        (mode,) = struct.unpack_from("<I", body)
        name = body[8:-1]
        with self.changing(node, name):
            os.mkdir(name, mode, dir_fd=node.descriptor)
            if mode & 0o7000:
                os.chmod(name, mode, dir_fd=node.descriptor)
        return self.made(node, name, caller)

    def link(self, node: Node, caller: Caller, body: bytes) -> bytes:
        (number,) = struct.unpack_from("<Q", body)
        name = body[8:-1]
        with self.changing(node, name):
            os.link(self.live(self.nodes[number]).path, name, dst_dir_fd=node.descriptor, follow_symlinks=True)
        return self.made(node, name, caller)

    def made(self, parent: Node, name: bytes, caller: Caller) -> bytes:
        node = self.look_up(parent, name)
        if node is None:  # removed by another client just now
            raise OSError(errno.ESTALE, "removed by another client")
        if caller.uid:
            os.chown(name, caller.uid, -1, dir_fd=parent.descriptor, follow_symlinks=False)
            self.ask(node)
        return self.entry(node)

    def unlink(self, node: Node, caller: Caller, body: bytes) -> bytes:
        name = body[:-1]
        with self.changing(node, name):
            if not self.rename_silly(node, name):
                os.unlink(name, dir_fd=node.descriptor)
        node.names[name] = None
        return b""

    def rmdir(self, node: Node, caller: Caller, body: bytes) -> bytes:
        name = body[:-1]
        with self.changing(node, name):
            os.rmdir(name, dir_fd=node.descriptor)
        node.names[name] = None
        return b""

    def rename(self, node: Node, caller: Caller, body: bytes) -> bytes:
        return self.rename_to(node, 0, *struct.unpack_from("<Q", body), *body[8:-1].split(b"\0"))

    def rename2(self, node: Node, caller: Caller, body: bytes) -> bytes:
        number, flags = struct.unpack_from("<QI", body)
        return self.rename_to(node, flags, number, *body[16:-1].split(b"\0"))

    def rename_to(self, node: Node, flags: int, number: int, old: bytes, new: bytes) -> bytes:
        if flags:
            raise OSError(errno.EINVAL, "NFS has no flags of renameat2(2)")
        target = self.nodes[number]
        with self.changing(node, old), self.changing(target, new):
            self.rename_silly(target, new)
            os.rename(old, new, src_dir_fd=node.descriptor, dst_dir_fd=target.descriptor)
        node.names[old] = None
        moved = self.look_up(target, new)
        if moved is not None and moved.silly is not None:
            moved.silly = target, new
        return b""

    def rename_silly(self, parent: Node, name: bytes) -> bool:
        """Rename the file if it is open here; whether it is."""
        try:
            status = os.stat(name, dir_fd=parent.descriptor, follow_symlinks=False)
        except FileNotFoundError:
            return False
        node = self.by_inode.get((status.st_dev, status.st_ino))
        if node is None or not node.opened or node.is_directory:
            return False
        if node.silly is not None:
            raise OSError(errno.EBUSY, "it is open")
        silly = SILLY + f"{status.st_ino:016x}{os.getpid() & 0xFFFF:04x}{node.number & 0xFFFF:04x}".encode()
        os.rename(name, silly, src_dir_fd=parent.descriptor, dst_dir_fd=parent.descriptor)
        node.silly = parent, silly
        parent.names[silly] = node
        return True

    def open(self, node: Node, caller: Caller, body: bytes) -> bytes:
        (flags,) = struct.unpack_from("<I", body)
        self.ask(node)
        descriptor = os.open(node.path, flags & ~(os.O_APPEND | os.O_NOFOLLOW | NEW))
        node.opened += 1
        if flags & os.O_TRUNC:
            self.ask(node)
        return self.opened(descriptor)

    def create(self, node: Node, caller: Caller, body: bytes) -> bytes:
        flags, mode = struct.unpack_from("<II", body)
        name = body[16:-1]
        with self.changing(node, name):
            flags = flags & ~os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
            descriptor = os.open(name, flags, mode, dir_fd=node.descriptor)
        try:
            entry = self.made(node, name, caller)
        except BaseException:
            os.close(descriptor)
            raise
        made = node.names[name]
        assert made is not None
        made.opened += 1
        return entry + self.opened(descriptor)

    def read(self, node: Node, caller: Caller, body: bytes) -> bytes:
        handle, offset, size, *_ = READ.unpack_from(body)
        self.live(node)
        return os.pread(handle, size, offset)

    def write(self, node: Node, caller: Caller, body: bytes) -> bytes:
        handle, offset, size, *_ = READ.unpack_from(body)
        self.live(node)
        written = os.pwrite(handle, body[READ.size : READ.size + size], offset)
        self.ask(node)
        return struct.pack("<II", written, 0)

    def release(self, node: Node, caller: Caller, body: bytes) -> bytes:
        os.close(struct.unpack_from("<Q", body)[0])
        node.opened -= 1
        if node.silly is not None and not node.opened:
            (parent, name), node.silly = node.silly, None
            try:
                with self.changing(parent, name):
                    os.unlink(name, dir_fd=parent.descriptor)
            except OSError:  # another client has removed it
                pass
        return b""

    def statfs(self, node: Node, caller: Caller, body: bytes) -> bytes:
        s = os.statvfs(self.live(node).descriptor)
        counts = (s.f_blocks, s.f_bfree, s.f_bavail, s.f_files, s.f_ffree)
        return struct.pack("<5Q3I28x", *counts, s.f_bsize, s.f_namemax, s.f_frsize)

    def fsync(self, node: Node, caller: Caller, body: bytes) -> bytes:
        self.live(node)
        return b""

    def flush(self, node: Node, caller: Caller, body: bytes) -> bytes:
        return b""

    fsyncdir = fsync

    def opendir(self, node: Node, caller: Caller, body: bytes) -> bytes:
        self.ask(node)
        self.handle += 1
        return self.opened(self.handle)

    def readdir(self, node: Node, caller: Caller, body: bytes) -> bytes:
        handle, offset, size, *_ = READ.unpack_from(body)
        if offset == 0 or handle not in self.listings:
            self.listings[handle] = self.listing(node)
        answer = b""
        for number, (name, inode, kind) in enumerate(self.listings[handle][offset:], offset + 1):
            entry = struct.pack("<QQII", inode, number, len(name), kind) + name
            entry += b"\0" * (-len(entry) % 8)
            if len(answer) + len(entry) > size:
                break
            answer += entry
        return answer

    def listing(self, node: Node) -> list[Entry]:
        """READDIR on the wire, unless what the last one told is still believed."""
        if node.listing is not None and node.listing[0] == self.change(node.status):
            return node.listing[1]
        self.ask(node)
        descriptor = os.open(node.path, os.O_RDONLY | os.O_DIRECTORY)
        entries = [(b".", node.status.st_ino, stat.S_IFDIR >> 12), (b"..", node.status.st_ino, stat.S_IFDIR >> 12)]
        try:
            with os.scandir(descriptor) as found:
                for entry in found:
                    mode = stat.S_IFDIR if entry.is_dir(follow_symlinks=False) else stat.S_IFREG
                    mode = stat.S_IFLNK if entry.is_symlink() else mode
                    entries.append((os.fsencode(entry.name), entry.inode(), mode >> 12))
        finally:
            os.close(descriptor)
        node.listing = self.change(node.status), entries
        return entries

    def releasedir(self, node: Node, caller: Caller, body: bytes) -> bytes:
        self.listings.pop(struct.unpack_from("<Q", body)[0], None)
        return b""

    def getlk(self, node: Node, caller: Caller, body: bytes) -> bytes:
        raise OSError(errno.ENOLCK, "no locks here")

    setlk = setlkw = getlk

    def init(self, node: Node, caller: Caller, body: bytes) -> bytes:
        _, _, readahead, offered = struct.unpack_from("<4I", body)
        flags = offered & (ATOMIC_O_TRUNC | BIG_WRITES | POSIX_LOCKS | FLOCK_LOCKS)
        return struct.pack("<4IHHII36x", 7, 31, readahead, flags, 16, 12, MAX_WRITE, 1)


class Changing:
    """A change in a directory that this client makes: the server tells what it was before and after that."""

    def __init__(self, client: Client, parent: Node, names: tuple[bytes, ...]) -> None:
        self.client, self.parent, self.names = client, parent, names

    def __enter__(self) -> None:
        self.client.ask(self.parent)

    def __exit__(self, *_: object) -> None:
        if not self.client.tick:
            now = time.time_ns()
            os.utime(self.parent.path, ns=(now, now))
        self.parent.listing = None
        remembered = dict(self.parent.names)
        self.client.learn(self.parent, os.fstat(self.parent.descriptor))
        self.parent.names = remembered  # what they were before, they still are
        for name in self.names:
            self.parent.names.pop(name, None)


class Caller:
    def __init__(self, thread: int, uid: int) -> None:
        self.thread, self.uid = thread, uid


REQUESTS = {
    1: "lookup", 3: "getattr", 4: "setattr", 5: "readlink", 6: "symlink", 8: "mknod", 9: "mkdir", 10: "unlink",
    11: "rmdir", 12: "rename", 13: "link", 14: "open", 15: "read", 16: "write", 17: "statfs", 18: "release",
    20: "fsync", 25: "flush", 26: "init", 27: "opendir", 28: "readdir", 29: "releasedir", 30: "fsyncdir",
    31: "getlk", 32: "setlk", 33: "setlkw", 35: "create", 45: "rename2",
}  # fmt: skip
FORGET, INTERRUPT, DESTROY, BATCH_FORGET = 2, 36, 38, 42
CHANGES = {"symlink", "mknod", "mkdir", "unlink", "rmdir", "rename", "rename2", "link", "create", "release"}
NOT_TRIED_AGAIN = {"read", "write", "statfs", "fsync", "flush", "release", "readdir", "releasedir", "fsyncdir"}


def serve(client: Client, device: int) -> None:
    """Answer the kernel until the mount is gone."""
    buffer = bytearray(BUFFER)
    while True:
        try:
            length = os.readv(device, [buffer])
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):  # the caller was killed meanwhile
                continue
            if error.errno == errno.ENODEV:
                return
            raise
        _, code, unique, number, uid, _, thread, _, _ = HEADER.unpack_from(buffer)
        body = bytes(memoryview(buffer)[HEADER.size : length])
        if code == FORGET:
            client.forget(client.nodes[number], *struct.unpack_from("<Q", body))
        elif code == BATCH_FORGET:
            for each, lookups in struct.iter_unpack("<QQ", body[8:]):
                client.forget(client.nodes[each], lookups)
        elif code == DESTROY:
            return
        elif code != INTERRUPT:
            status, answer = respond(client, REQUESTS.get(code, ""), number, Caller(thread, uid), body)
            try:
                os.writev(device, [ANSWER.pack(ANSWER.size + len(answer), -status, unique), answer])
            except OSError as error:
                if error.errno != errno.ENOENT:  # the caller was killed meanwhile
                    raise


def respond(client: Client, name: str, number: int, caller: Caller, body: bytes) -> tuple[int, bytes]:
    request: Callable[[Node, Caller, bytes], bytes] | None = getattr(client, name, None) if name else None
    if request is None:
        return errno.ENOSYS, b""
    node = client.root if name == "init" else client.nodes[number]
    is_locked = name in CHANGES
    if is_locked:
        fcntl.flock(client.server, fcntl.LOCK_EX)  # the server does one change at a time, and tells what was before
    try:
        answer = request(node, caller, body)
    except OSError as error:
        status = error.errno or errno.EIO
        if status == errno.ESTALE and caller.thread not in client.again and name not in NOT_TRIED_AGAIN:
            client.again.add(caller.thread)
        elif status != errno.ENOENT or name != "lookup":
            client.again.discard(caller.thread)
        return status, b""
    finally:
        if is_locked:
            fcntl.flock(client.server, fcntl.LOCK_UN)
    if name not in ("lookup", "getattr"):
        client.again.discard(caller.thread)
    return 0, answer


def main() -> None:
    backing, mountpoint = sys.argv[1:3]
    tick = float(sys.argv[4]) if sys.argv[3:4] == ["--tick"] else 0
    os.umask(0)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    client = Client(backing, tick)
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other"
    arguments = (b"nfs-like", os.fsencode(mountpoint), b"fuse.nfs-like", MS_NOSUID | MS_NODEV, options.encode())
    if libc.mount(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{mountpoint} can't be mounted: {os.strerror(ctypes.get_errno())}")

    def unmount(*_: object) -> None:
        libc.umount2(arguments[1], MNT_DETACH)
        sys.exit()

    signal.signal(signal.SIGTERM, unmount)
    print("ready", flush=True)
    serve(client, device)


if __name__ == "__main__":
    main()
