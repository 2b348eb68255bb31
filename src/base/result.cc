#include "gyre/base/result.h"

#include <system_error>

#include "gyre/base/format.h"

namespace gyre {

Error Error::Sys(std::string_view operation, int sys_errno, ErrorKind kind) {
  return {kind, format("{}: {}", operation, std::generic_category().message(sys_errno)), sys_errno};
}

Error&& Error::Within(std::string_view context) && {
  message_ = format("{}: {}", context, message_);
  return std::move(*this);
}

}  // namespace gyre
