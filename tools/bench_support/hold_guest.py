"""A guest that says one byte on the serial port and halts: for looking at a VMM at rest."""
import struct

LOAD_ADDRESS = 0x100000
PT_LOAD, PT_NOTE = 1, 4
XEN_ELFNOTE_PHYS32_ENTRY = 18
# cli; mov dx, 0x3f8; mov al, 'h'; out dx, al; 1: hlt; jmp 1b
CODE = bytes.fromhex("fa 66 ba f8 03 b0 68 ee f4 eb fd")


def elf():
    """The bytes of an ELF64 image with a PVH note."""
    headers = 64 + 2 * 56
    note = struct.pack("<III4sI", 4, 4, XEN_ELFNOTE_PHYS32_ENTRY, b"Xen\0", 0)
    note_offset = headers
    code_offset = note_offset + len(note)
    entry = LOAD_ADDRESS + code_offset
    note = note[:-4] + struct.pack("<I", entry)
    size = code_offset + len(CODE)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", PT_LOAD, 5, 0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 4096)
    notes = struct.pack("<IIQQQQQQ", PT_NOTE, 4, note_offset, LOAD_ADDRESS + note_offset,
                        LOAD_ADDRESS + note_offset, len(note), len(note), 4)
    return header + load + notes + note + CODE
