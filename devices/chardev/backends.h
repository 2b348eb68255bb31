// The kinds of char backend, one function each; NewCharBackend chooses.
#pragma once

#include <memory>
#include <string>

#include "gyre/base/result.h"
#include "gyre/devices/char_backend.h"
#include "gyre/loop/main_loop.h"

namespace gyre::devices {

// The process's stdin and stdout.
Result<std::unique_ptr<CharBackend>> NewStdioBackend(loop::MainLoop& loop);
// Output only: the file is created (0640), or else truncated or appended to.
Result<std::unique_ptr<CharBackend>> NewFileBackend(loop::MainLoop& loop, const std::string& path,
                                                    bool append);
// A new pseudo-terminal, raw; its slave is for whoever wants to open it.
Result<std::unique_ptr<CharBackend>> NewPtyBackend(loop::MainLoop& loop);
// A listening stream socket at `path` (0660), removed at destruction.
Result<std::unique_ptr<CharBackend>> NewUnixBackend(loop::MainLoop& loop, const std::string& path);
// The same on a socket that listens already and is ours from here on; its file is whoever's made it.
Result<std::unique_ptr<CharBackend>> NewPassedUnixBackend(loop::MainLoop& loop, int fd);
// The form of `path` alone.
Status CheckUnixPath(const std::string& path);

}  // namespace gyre::devices
