// Writes the synthetic images of the boot tests as seeds: make_boot_seeds DIRECTORY.
#include <fstream>
#include <iostream>
#include <map>
#include <string>

#include "tests/unit/machine/boot/image_builder.h"
#include "tests/unit/machine/boot/packed_image.h"

namespace gyre::machine {
namespace {

std::map<std::string, Bytes> Seeds() {
  Bytes multiboot_elf = MakeElf<Elf32>();
  PutMultibootMagic(multiboot_elf, 0x1004, 3);
  std::map<std::string, Bytes> seeds;
  for (const std::string packing : kPackings) {
    seeds.emplace("seed-bzimage-" + packing, MakePackedBzImage(Pack(packing, MakeVmlinux())));
  }
  seeds.insert({{"seed-bzimage", MakeBzImage()},
                {"seed-linux-elf64", MakeElf<Elf64>()},
                {"seed-pvh-elf64", MakeElf<Elf64>(MakePvhNotes<std::uint64_t>())},
                {"seed-pvh-elf32", MakeElf<Elf32>(MakePvhNotes<std::uint32_t>())},
                {"seed-multiboot", MakeMultiboot()},
                {"seed-multiboot-elf32", multiboot_elf}});
  return seeds;
}

int Main(const std::string& directory) {
  for (const auto& [name, content] : Seeds()) {
    std::ofstream stream(directory + "/" + name, std::ios::binary);
    for (const std::byte byte : content.data()) {
      stream.put(static_cast<char>(byte));
    }
    if (!stream.flush()) {
      std::cerr << directory << "/" << name << ": cannot write\n";
      return 1;
    }
  }
  return 0;
}

}  // namespace
}  // namespace gyre::machine

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: make_boot_seeds DIRECTORY\n";
    return 2;
  }
  return gyre::machine::Main(argv[1]);
}
