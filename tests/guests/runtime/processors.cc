// Finds the processors in the firmware's tables and starts them.
#include "guest.h"

namespace guest {
namespace {

struct Tss {
  std::uint8_t bytes[104 + 8192 + 1];
};

struct NextProcessor {
  std::uint64_t stack = 0;
  std::uint64_t argument = 0;
  std::uint64_t tss_selector = 0;
};

struct Processor {
  alignas(16) std::uint8_t kernel_stack[KERNEL_STACK_SIZE];
  alignas(16) std::uint8_t user_stack[USER_STACK_SIZE];
  void (*main)(std::size_t index);
  std::size_t index;
  Tss tss;
  bool started;
};

Processor processors[kMaxProcessors];

}  // namespace
}  // namespace guest

extern "C" {
extern std::uint64_t descriptors[];
extern guest::NextProcessor next_processor;
extern const std::uint8_t trampoline_begin[];
extern const std::uint8_t trampoline_end[];
[[noreturn]] void ProcessorStart(guest::Processor& processor);
void* memcpy(void* to, const void* from, std::size_t size);
}

namespace guest {
namespace {

void DescribeTss(std::size_t slot, std::uint64_t base) {
  std::uint64_t* const entry = &descriptors[FIRST_TSS / 8 + slot * 2];
  entry[0] = (sizeof(Tss) - 1) | ((base & 0xffffff) << 16) | (std::uint64_t{0x89} << 40) |
             (((base >> 24) & 0xff) << 56);
  entry[1] = base >> 32;
}

void PrepareTss(Tss& tss, const std::uint8_t* stack_end) {
  Write<std::uint64_t>(reinterpret_cast<std::uint64_t>(&tss.bytes[4]),
                       reinterpret_cast<std::uint64_t>(stack_end));
  Write<std::uint16_t>(reinterpret_cast<std::uint64_t>(&tss.bytes[102]), 104);  // where the I/O bitmap begins
  tss.bytes[sizeof(tss.bytes) - 1] = 0xff;
}

bool ChecksumIsRight(const std::uint8_t* bytes, std::size_t size) {
  std::uint8_t sum = 0;
  for (std::size_t i = 0; i < size; ++i) {
    sum = static_cast<std::uint8_t>(sum + bytes[i]);
  }
  return sum == 0;
}

bool HasSignature(const std::uint8_t* bytes, const char* signature) {
  for (; *signature != '\0'; ++signature, ++bytes) {
    if (*bytes != static_cast<std::uint8_t>(*signature)) {
      return false;
    }
  }
  return true;
}

template <typename T>
T Load(const std::uint8_t* at) {
  return Read<T>(reinterpret_cast<std::uint64_t>(at));
}

const std::uint8_t* Pointer(std::uint64_t address) { return reinterpret_cast<const std::uint8_t*>(address); }

void AddProcessor(ProcessorList& list, std::uint32_t apic_id) {
  if (list.count < kMaxProcessors) {
    list.apic_id[list.count++] = apic_id;
  }
}

// ACPI 6.4, 5.2.12.
void ReadMadt(const std::uint8_t* madt, ProcessorList& list) {
  const std::uint8_t* const end = madt + Load<std::uint32_t>(madt + 4);
  for (const std::uint8_t* entry = madt + 44; entry < end && entry[1] != 0; entry += entry[1]) {
    if (entry[0] == 0 && (entry[4] & 1) != 0) {
      AddProcessor(list, entry[3]);
    } else if (entry[0] == 9 && (entry[8] & 1) != 0) {
      AddProcessor(list, Load<std::uint32_t>(entry + 4));
    }
  }
}

const std::uint8_t* FindMpPointer(std::uint64_t start, std::uint64_t end) {
  for (std::uint64_t at = start; at < end; at += 16) {
    if (HasSignature(Pointer(at), "_MP_") && ChecksumIsRight(Pointer(at), 16)) {
      return Pointer(at);
    }
  }
  return nullptr;
}

// MultiProcessor Specification 1.4, chapter 4.
void ReadMpTable(ProcessorList& list) {
  const std::uint8_t* pointer = FindMpPointer(0x9fc00, 0xa0000);
  if (pointer == nullptr) {
    pointer = FindMpPointer(0xe0000, 0x100000);
  }
  if (pointer == nullptr) {
    return;
  }
  const std::uint8_t* const table = Pointer(Load<std::uint32_t>(pointer + 4));
  if (!HasSignature(table, "PCMP") || !ChecksumIsRight(table, Load<std::uint16_t>(table + 4))) {
    return;
  }
  const std::uint8_t* entry = table + 44;
  for (unsigned i = 0; i < Load<std::uint16_t>(table + 34); ++i) {
    if (entry[0] == 0 && (entry[3] & 1) != 0) {
      AddProcessor(list, entry[1]);
    }
    entry += entry[0] == 0 ? 20 : 8;
  }
}

void WaitTsc(std::uint64_t ticks) {
  const std::uint64_t start = ReadTsc();
  while (ReadTsc() - start < ticks) {
    Pause();
  }
}

}  // namespace

const std::uint8_t* FindAcpiTable(std::uint64_t rsdp, const char* signature) {
  const std::uint8_t* const root = Pointer(rsdp);
  if (rsdp == 0 || !HasSignature(root, "RSD PTR ") || !ChecksumIsRight(root, 20)) {
    return nullptr;
  }
  const bool extended = root[15] >= 2;
  if (extended && !ChecksumIsRight(root, Load<std::uint32_t>(root + 20))) {
    return nullptr;
  }
  const std::uint8_t* const table =
      Pointer(extended ? Load<std::uint64_t>(root + 24) : Load<std::uint32_t>(root + 16));
  const auto size = Load<std::uint32_t>(table + 4);
  if (!HasSignature(table, extended ? "XSDT" : "RSDT") || !ChecksumIsRight(table, size)) {
    return nullptr;
  }
  for (std::uint32_t at = 36; at < size; at += extended ? 8 : 4) {
    const std::uint8_t* const found =
        Pointer(extended ? Load<std::uint64_t>(table + at) : Load<std::uint32_t>(table + at));
    if (HasSignature(found, signature) && ChecksumIsRight(found, Load<std::uint32_t>(found + 4))) {
      return found;
    }
  }
  return nullptr;
}

bool WriteFadtRegister(std::uint64_t rsdp, std::size_t offset, std::uint8_t value) {
  const std::uint8_t* const fadt = FindAcpiTable(rsdp, "FACP");
  if (fadt == nullptr || Load<std::uint32_t>(fadt + 4) < offset + 12) {
    return false;
  }
  const auto address = Load<std::uint64_t>(fadt + offset + 4);
  if (address == 0 || fadt[offset] > 1) {
    return false;
  }
  if (fadt[offset] == 0) {
    Write<std::uint8_t>(address, value);
  } else {
    Out8(static_cast<std::uint16_t>(address), value);
  }
  return true;
}

ProcessorList FindProcessors(const BootInfo& boot) {
  static ProcessorList list;
  list.count = 0;
  if (const std::uint8_t* const madt = FindAcpiTable(boot.rsdp, "APIC"); madt != nullptr) {
    ReadMadt(madt, list);
  } else {
    ReadMpTable(list);
  }
  return list;
}

bool StartProcessor(std::uint32_t apic_id, void (*main)(std::size_t index), std::size_t index) {
  constexpr std::uint32_t kInit = 0x4500;
  constexpr std::uint32_t kStartUp = 0x4600;
  constexpr std::uint64_t kSecond = 3'000'000'000;  // TSC ticks, near enough
  Processor& processor = processors[index];
  processor.main = main;
  processor.index = index;
  PrepareTss(processor.tss, &processor.kernel_stack[KERNEL_STACK_SIZE]);
  DescribeTss(index, reinterpret_cast<std::uint64_t>(&processor.tss));
  next_processor = {.stack = reinterpret_cast<std::uint64_t>(&processor.user_stack[USER_STACK_SIZE - 8]),
                    .argument = reinterpret_cast<std::uint64_t>(&processor),
                    .tss_selector = FIRST_TSS + index * 16};
  memcpy(reinterpret_cast<void*>(TRAMPOLINE), trampoline_begin,
         static_cast<std::size_t>(trampoline_end - trampoline_begin));
  apic::Set(apic::kCommandHigh, apic_id << 24);
  apic::Set(apic::kCommandLow, kInit);
  WaitTsc(kSecond / 2000);
  // The second one is for processors that missed the first, as the SDM's sequence has it.
  for (int attempt = 0; attempt < 2; ++attempt) {
    apic::Set(apic::kCommandLow, kStartUp | (TRAMPOLINE >> 12));
    const std::uint64_t start = ReadTsc();
    while (ReadTsc() - start < kSecond) {
      if (__atomic_load_n(&processor.started, __ATOMIC_ACQUIRE)) {
        return true;
      }
      Pause();
    }
  }
  return false;
}

}  // namespace guest

void ProcessorStart(guest::Processor& processor) {
  __atomic_store_n(&processor.started, true, __ATOMIC_RELEASE);
  processor.main(processor.index);
  for (;;) {
    guest::Pause();
  }
}
