// Names for clang's thread-safety analysis; nothing with other compilers.
#pragma once

#if defined(__clang__)
#define GYRE_TSA(x) __attribute__((x))
#else
#define GYRE_TSA(x)
#endif

#define CAPABILITY(name) GYRE_TSA(capability(name))
#define SCOPED_CAPABILITY GYRE_TSA(scoped_lockable)
#define GUARDED_BY(lock) GYRE_TSA(guarded_by(lock))
#define PT_GUARDED_BY(lock) GYRE_TSA(pt_guarded_by(lock))
#define ACQUIRED_BEFORE(...) GYRE_TSA(acquired_before(__VA_ARGS__))
#define ACQUIRED_AFTER(...) GYRE_TSA(acquired_after(__VA_ARGS__))
#define REQUIRES(...) GYRE_TSA(requires_capability(__VA_ARGS__))
#define ACQUIRE(...) GYRE_TSA(acquire_capability(__VA_ARGS__))
#define RELEASE(...) GYRE_TSA(release_capability(__VA_ARGS__))
#define TRY_ACQUIRE(...) GYRE_TSA(try_acquire_capability(__VA_ARGS__))
#define EXCLUDES(...) GYRE_TSA(locks_excluded(__VA_ARGS__))
#define ASSERT_CAPABILITY(x) GYRE_TSA(assert_capability(x))
#define RETURN_CAPABILITY(x) GYRE_TSA(lock_returned(x))
#define NO_THREAD_SAFETY_ANALYSIS GYRE_TSA(no_thread_safety_analysis)
