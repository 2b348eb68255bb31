// What the DSDT of a machine with one processor says, as ASL. Compiled, it must
// give our bytes; our bytes, disassembled, must give this text.
DefinitionBlock ("", "DSDT", 2, "GYRE  ", "GYREVM  ", 0x00000001)
{
    Name (_S1, Package (0x04)  // _S1_: S1 System State
    {
        One,
        Zero,
        Zero,
        Zero
    })
    Name (_S5, Package (0x04)  // _S5_: S5 System State
    {
        0x05,
        Zero,
        Zero,
        Zero
    })
    Scope (\_SB)
    {
        Device (C000)
        {
            Name (_HID, "ACPI0007" /* Processor Device */)
            Name (_UID, Zero)
        }

        Device (MBRD)
        {
            Name (_HID, EisaId ("PNP0C02") /* PNP Motherboard Resources */)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16,
                    0x0080,
                    0x0080,
                    0x01,
                    0x01,
                    )
                IO (Decode16,
                    0x00F4,
                    0x00F4,
                    0x01,
                    0x04,
                    )
                Memory32Fixed (ReadWrite,
                    0xFEA00200,
                    0x00000004,
                    )
                Memory32Fixed (ReadWrite,
                    0xFEA00210,
                    0x00000004,
                    )
                Memory32Fixed (ReadWrite,
                    0xFEC00000,
                    0x00001000,
                    )
                Memory32Fixed (ReadWrite,
                    0xFEE00000,
                    0x00001000,
                    )
            })
        }

        Device (COM1)
        {
            Name (_HID, EisaId ("PNP0501") /* 16550A-compatible COM Serial Port */)
            Name (_UID, Zero)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16,
                    0x03F8,
                    0x03F8,
                    0x01,
                    0x08,
                    )
                Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive, ,, )
                {
                    0x00000004,
                }
            })
        }

        Device (RTC)
        {
            Name (_HID, EisaId ("PNP0B00") /* AT Real-Time Clock */)
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16,
                    0x0070,
                    0x0070,
                    0x01,
                    0x02,
                    )
                Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive, ,, )
                {
                    0x00000008,
                }
            })
        }

        Device (PEVT)
        {
            Name (_HID, "QEMU0001")
            Name (_CRS, ResourceTemplate ()
            {
                IO (Decode16,
                    0x0505,
                    0x0505,
                    0x01,
                    0x01,
                    )
            })
        }

        Device (PWRB)
        {
            Name (_HID, EisaId ("PNP0C0C") /* Power Button Device */)
        }

        Device (GED)
        {
            Name (_HID, "ACPI0013")
            Name (_CRS, ResourceTemplate ()
            {
                Interrupt (ResourceConsumer, Edge, ActiveHigh, Exclusive, ,, )
                {
                    0x00000009,
                }
            })
            OperationRegion (EVTR, SystemMemory, 0xFEA00210, 0x04)
            Field (EVTR, DWordAcc, NoLock, Preserve)
            {
                PEND,   32
            }

            Method (_EVT, 1, Serialized)
            {
                Local0 = PEND
                If ((Local0 & One))
                {
                    Notify (\_SB.PWRB, 0x80)
                }
            }
        }
    }
}
