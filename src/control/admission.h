// How many clients a server has, and of whom: so that those of one user, who may have some, keep nobody else
// out. Pure.
#pragma once

#include <sys/types.h>

#include <cstddef>

namespace gyre::control {

inline constexpr std::size_t kMostClients = 256;  // later ones wait in the sockets' backlogs
// Of them for root and gyred's own user, who could end it in any case. The others are strangers.
inline constexpr std::size_t kKeptPlaces = 32;
inline constexpr std::size_t kMostOfAStranger = 64;

constexpr bool IsStranger(uid_t user, uid_t own) { return user != 0 && user != own; }

// `his`: clients that he has by now; `all`: those of all strangers. Who gets none does not wait: others would
// have to wait behind him.
constexpr bool StrangerGetsAPlace(std::size_t his, std::size_t all) {
  return his < kMostOfAStranger && all < kMostClients - kKeptPlaces;
}

}  // namespace gyre::control
