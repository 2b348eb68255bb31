// A connection between gyrectl and gyre-agent: frames both ways on a socket that
// does not block, with a bound on what is kept. One thread.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "gyre/base/result.h"
#include "gyre/base/unique_fd.h"
#include "tools/exec/protocol.h"

namespace gyre::exec {

class Link {
 public:
  // From here on a side gives nothing more of a stream to the link.
  static constexpr std::size_t kMuch = std::size_t{128} << 10;

  // `peer`: who is at the other end. The socket is made not to block.
  Link(UniqueFd socket, Side peer);

  int fd() const { return socket_.get(); }
  void Put(FrameType type, std::string_view payload = {});
  // Bytes that were put and not sent.
  std::size_t pending() const { return outgoing_.size() - sent_; }
  bool HasRoom() const { return pending() < kMuch; }
  // What poll(2) is to wait for.
  short events() const;

  // Sends what the socket takes. False: nobody is there to take more; what has come can still be read.
  bool Send();
  // Takes some of what has come, once Next has nothing more. False: the peer has ended, or the connection.
  bool Receive() { return Take(true); }
  // The same, and nothing of it is wanted.
  bool Discard() { return Take(false); }
  Result<std::optional<Frame>> Next() { return reader_.Next(); }
  // The peer is to read the end once it has the rest.
  void EndSending();

 private:
  bool Take(bool keep);

  UniqueFd socket_;
  FrameReader reader_;
  std::string outgoing_;
  std::size_t sent_ = 0;
};

}  // namespace gyre::exec
