// What QMP's commands return, for people: the texts of the monitor's lines. Pure.
#pragma once

#include <cstdint>
#include <string>

#include "src/control/json.h"

namespace gyre::control {

// `result` is of the command's own type; `vcpu`: which one is the line's.
std::string StatusText(const Json& result, std::uint32_t vcpu);
std::string NameText(const Json& result, std::uint32_t vcpu);
std::string UuidText(const Json& result, std::uint32_t vcpu);
std::string KvmText(const Json& result, std::uint32_t vcpu);
std::string CpusText(const Json& result, std::uint32_t vcpu);
std::string ChardevText(const Json& result, std::uint32_t vcpu);
std::string BalloonText(const Json& result, std::uint32_t vcpu);
std::string BlockText(const Json& result, std::uint32_t vcpu);
std::string BlockStatsText(const Json& result, std::uint32_t vcpu);
std::string NetworkText(const Json& result, std::uint32_t vcpu);
std::string MemorySizeText(const Json& result, std::uint32_t vcpu);
std::string IoThreadsText(const Json& result, std::uint32_t vcpu);
std::string StatsText(const Json& result, std::uint32_t vcpu);
std::string DumpText(const Json& result, std::uint32_t vcpu);
// A text, as it is.
std::string ReadableText(const Json& result, std::uint32_t vcpu);
std::string VirtioText(const Json& result, std::uint32_t vcpu);
std::string PropertiesText(const Json& result, std::uint32_t vcpu);
std::string ValueText(const Json& result, std::uint32_t vcpu);
std::string PlainText(const Json& result, std::uint32_t vcpu);

}  // namespace gyre::control
