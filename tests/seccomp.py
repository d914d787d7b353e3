"""A program that makes Landlock's system calls, 444 to 446, fail, or the last of them only, as a container may."""

SECCOMP = """
import ctypes, errno, os, sys
class Filter(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.POINTER(Filter))]
def forbid(first, error):
    steps = [(0x20, 0, 0, 0), (0x35, 0, 2, first), (0x25, 1, 0, 446), (6, 0, 0, 0x50000 | error), (6, 0, 0, 0x7FFF0000)]
    program = Program(len(steps), (Filter * len(steps))(*steps))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(program)) == 0, ctypes.get_errno()
"""
