"""The guests that the suites start, made here byte by byte, so that every VMM gets the same image and no build is needed.

Their code is the same in the 32-bit flat mode of PVH and Multiboot and in the 64-bit mode of Linux's protocol; a bzImage
has the same program once more in 16 bits, for VMMs that enter its setup code as a BIOS would.
"""
import struct

LOAD_ADDRESS = 0x100000
SERIAL, EXIT, POWER_OFF, RESET = 0x3f8, 0xf4, 0x600, 0x64
NOBODY = 0xd0000000  # an address that no VMM here puts anything at
PROTOCOLS = ("pvh", "linux", "multiboot", "bzimage")
_PT_LOAD, _PT_NOTE = 1, 4
_XEN_ELFNOTE_PHYS32_ENTRY = 18
_MULTIBOOT_MAGIC, _MULTIBOOT_ADDRESSES = 0x1badb002, 1 << 16
_SETUP_SECTORS = 1
_CODE_OFFSET = 0x200  # where Linux's 64-bit protocol enters what is loaded at code32_start


def _out(port, value, bits=32):
    """OUT of a byte: mov dx, port; mov al, value; out dx, al."""
    return (b"" if bits == 16 else b"\x66") + b"\xba" + struct.pack("<H", port) + bytes([0xb0, value, 0xee])


def _end(bits=32):
    """Every way out that a VMM here may have, the best one first: exit port with 0, power-off port, keyboard controller's
    reset, an undefined instruction without anybody to serve it."""
    return _out(EXIT, 0, bits) + _out(POWER_OFF, 0x34, bits) + _out(RESET, 0xfe, bits) + b"\x0f\x0b"


def hello(bits=32):
    """Says a line and ends."""
    return b"".join(_out(SERIAL, byte, bits) for byte in b"hello\n") + _end(bits)


def hold(bits=32):
    """Says a byte and halts for good: for looking at a VMM at rest."""
    return b"\xfa" + _out(SERIAL, ord("h"), bits) + b"\xf4\xeb\xfd"


def touch(mib):
    """Writes a byte to each page of as many MiB from 16 MiB on, then holds."""
    # mov ebx, 16M; mov ecx, pages; 1: mov [ebx], cl; add ebx, 4096; dec ecx; jnz 1b
    loop = b"\xbb" + struct.pack("<I", 16 << 20) + b"\xb9" + struct.pack("<I", mib * 256)
    return loop + bytes.fromhex("88 0b 81 c3 00 10 00 00 ff c9 75 f4") + hold()


def port_reads(count):
    """Reads the UART's scratch register so often, then says hello and ends."""
    # mov ecx, count; mov dx, 0x3ff; 1: in al, dx; dec ecx; jnz 1b
    return b"\xb9" + struct.pack("<I", count) + bytes.fromhex("66 ba ff 03 ec ff c9 75 fb") + hello()


def memory_reads(count):
    """Reads a word where nobody is so often, then says hello and ends."""
    # mov ecx, count; mov ebx, NOBODY; 1: mov eax, [ebx]; dec ecx; jnz 1b
    return (b"\xb9" + struct.pack("<I", count) + b"\xbb" + struct.pack("<I", NOBODY) +
            bytes.fromhex("8b 03 ff c9 75 fa") + hello())


def _elf(code, note):
    """An ELF64 image of one read-only segment, and perhaps a PVH note."""
    count = 2 if note else 1
    note_offset = 64 + count * 56
    code_offset = note_offset + (20 if note else 0)
    entry = LOAD_ADDRESS + code_offset
    notes = struct.pack("<III4sI", 4, 4, _XEN_ELFNOTE_PHYS32_ENTRY, b"Xen\0", entry) if note else b""
    size = code_offset + len(code)
    header = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9) + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, count, 0, 0, 0)
    segments = struct.pack("<IIQQQQQQ", _PT_LOAD, 5, 0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 4096)
    if note:
        segments += struct.pack("<IIQQQQQQ", _PT_NOTE, 4, note_offset, LOAD_ADDRESS + note_offset,
                                LOAD_ADDRESS + note_offset, len(notes), len(notes), 4)
    return header + segments + notes + code


def pvh(code):
    return _elf(code, note=True)


def linux(code):
    """As a vmlinux without a PVH note: entered in 64-bit mode."""
    return _elf(code, note=False)


def multiboot(code):
    """Multiboot 1, a flat file with address fields."""
    size = 32 + len(code)
    flags = _MULTIBOOT_ADDRESSES
    return struct.pack("<8I", _MULTIBOOT_MAGIC, flags, -(_MULTIBOOT_MAGIC + flags) & 0xffffffff, LOAD_ADDRESS, LOAD_ADDRESS,
                       LOAD_ADDRESS + size, 0, LOAD_ADDRESS + 32) + code


def bzimage(code, code16):
    """As Documentation/arch/x86/boot.rst has it, protocol 2.15, with a 32-bit and a 64-bit entry."""
    setup = bytearray((_SETUP_SECTORS + 1) * 512)
    payload = code.ljust(_CODE_OFFSET, b"\x90") if len(code) <= _CODE_OFFSET else code
    payload = (payload + code).ljust(4096, b"\0")
    struct.pack_into("<BHIHHH", setup, 0x1f1, _SETUP_SECTORS, 0, len(payload) // 16, 0, 0xffff, 0)
    struct.pack_into("<H", setup, 0x1fe, 0xaa55)
    body = 0x26c  # the header's end
    setup[0x200:0x202] = bytes([0xeb, body - 0x202])
    struct.pack_into("<4sHIHHBBHIIIHBBI", setup, 0x202, b"HdrS", 0x20f, 0, 0x1000, 0, 0, 1, 0x8000, LOAD_ADDRESS, 0, 0, 0xfe00,
                     0, 0, 0x7fffffff)
    # kernel_alignment, relocatable_kernel, min_alignment, xloadflags: 64-bit entry; cmdline_size
    struct.pack_into("<IBBHI", setup, 0x230, 0x100000, 0, 12, 1, 2047)
    struct.pack_into("<QII", setup, 0x258, LOAD_ADDRESS, 1 << 20, 0)  # pref_address, init_size, handover_offset
    setup[body:body + len(code16)] = code16
    return bytes(setup) + payload


def image(protocol, program, *arguments):
    """The bytes of a program (hello, hold, ...) as an image for that protocol."""
    if protocol == "bzimage":
        return bzimage(program(*arguments), program(*arguments, bits=16))
    return {"pvh": pvh, "linux": linux, "multiboot": multiboot}[protocol](program(*arguments))
