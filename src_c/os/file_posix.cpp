// file_posix.cpp owns the calls to Linux and macOS for files and memory. It must not know what the
// bytes mean, and it holds no algorithm.
//
// Every failure is an Error(io) with errno and the path that the caller gave, except failed
// allocations, which are Error(memory). Calls that a signal interrupts are repeated.

#include "os/file.h"

#if !defined(_WIN32)

#if !defined(__linux__) && !defined(__APPLE__)
#error "annidx supports Linux, macOS and Windows; src_c/os/ needs a file for this system"
#endif

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <utility>
#include <vector>

#include "base/error.h"
#include "os/failure.h"
#include "os/names.h"

namespace annidx {
namespace {

static_assert(sizeof(off_t) == 8, "build with 64-bit file offsets (-D_FILE_OFFSET_BITS=64)");
static_assert(sizeof(std::size_t) == 8, "annidx maps whole files: it needs 64-bit addresses");

// One write() moves at most this much: Linux caps it below 2 GiB, macOS refuses more.
constexpr std::uint64_t kWriteBytes = std::uint64_t{1} << 30;
// One step of reserving disk space; a signal repeats one step, not the whole file.
constexpr std::uint64_t kReserveBytes = std::uint64_t{1} << 30;
// One step of reading ahead.
constexpr std::uint64_t kWarmBytes = std::uint64_t{16} << 20;
constexpr mode_t kNewFileMode = 0666;  // less the umask
constexpr int kMaxLinks = 40;
constexpr int kMaxNameTries = 10000;

// Repeats a call that returns -1 with EINTR.
template <class Call>
auto uninterrupted(Call call) -> decltype(call()) {
  for (;;) {
    const auto result = call();
    if (result != -1 || errno != EINTR) return result;
  }
}

// Closes a descriptor unless it was given away.
class Descriptor {
 public:
  explicit Descriptor(int number) noexcept : number_(number) {}
  ~Descriptor() {
    if (number_ >= 0) ::close(number_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const noexcept { return number_; }
  int give_away() noexcept { return std::exchange(number_, -1); }

 private:
  int number_;
};

std::uint64_t page_bytes() noexcept {
  static const std::uint64_t bytes = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  return bytes;
}

FileStamp stamp_from(const struct stat& status) noexcept {
#if defined(__APPLE__)
  const struct timespec& modified = status.st_mtimespec;
#else
  const struct timespec& modified = status.st_mtim;
#endif
  FileStamp stamp;
  stamp.device = static_cast<std::uint64_t>(status.st_dev);
  stamp.inode = static_cast<std::uint64_t>(status.st_ino);
  stamp.bytes = static_cast<std::uint64_t>(status.st_size);
  stamp.modified_ns = static_cast<std::int64_t>(modified.tv_sec) * 1000000000 + modified.tv_nsec;
  return stamp;
}

void require_regular(const struct stat& status, const char* action, const std::string& path) {
  if (S_ISREG(status.st_mode)) return;
  if (S_ISDIR(status.st_mode)) fail(action, path, EISDIR);
  fail_because(action, path, ENODEV, "it is not a regular file");
}

// Drops the whole pages inside a range from this process. Their content must be in a file: of
// private memory it would be lost.
void drop_pages(const std::byte* data, std::uint64_t bytes) noexcept {
  const std::uint64_t page = page_bytes();
  const std::uint64_t begin = reinterpret_cast<std::uint64_t>(data);
  const std::uint64_t first = (begin + page - 1) / page * page;
  const std::uint64_t end = (begin + bytes) / page * page;
  if (first >= end) return;
  ::madvise(reinterpret_cast<void*>(first), end - first, MADV_DONTNEED);
}

// The part of [offset, offset + bytes) that lies in a mapping of `total` bytes.
void drop_range(const std::byte* data, std::uint64_t total, std::uint64_t offset,
                std::uint64_t bytes) noexcept {
  if (offset >= total) return;
  drop_pages(data + offset, std::min(bytes, total - offset));
}

class AnonymousMemory final : public Memory {
 public:
  explicit AnonymousMemory(std::uint64_t bytes) {
    bytes_ = bytes;
    writable_ = true;
    if (bytes == 0) return;
    constexpr int kAccess = PROT_READ | PROT_WRITE;
    void* place = ::mmap(nullptr, bytes, kAccess, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED) {
      throw Error(ErrorCode::memory,
                  "cannot allocate " + std::to_string(bytes) + " bytes: " + described(errno));
    }
    data_ = static_cast<std::byte*>(place);
  }
  ~AnonymousMemory() override {
    if (data_ != nullptr) ::munmap(data_, bytes_);
  }
  void release(std::uint64_t, std::uint64_t) noexcept override {}
};

class WritableMapping final : public Memory {
 public:
  WritableMapping(int descriptor, std::uint64_t bytes, const std::string& path) {
    bytes_ = bytes;
    writable_ = true;
    if (bytes == 0) return;
    void* place = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (place == MAP_FAILED) fail("map", path, errno);
    data_ = static_cast<std::byte*>(place);
  }
  ~WritableMapping() override {
    if (data_ != nullptr) ::munmap(data_, bytes_);
  }
  void release(std::uint64_t offset, std::uint64_t bytes) noexcept override {
    drop_range(data_, bytes_, offset, bytes);
  }
};

std::string folder_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string read_link(const std::string& link, const std::string& given_path) {
  std::vector<char> target(PATH_MAX);
  const ssize_t length = ::readlink(link.c_str(), target.data(), target.size());
  if (length < 0) fail("read the link", given_path, errno);
  return std::string(target.data(), static_cast<std::size_t>(length));
}

// The path that the last component of `path` leads to through symbolic links, so that a rename
// replaces the target and the link stays. The target need not exist; what does must be a file.
std::string resolve_destination(const std::string& path) {
  std::string resolved = path;
  for (int followed = 0; followed <= kMaxLinks; ++followed) {
    if (name_of(resolved).empty()) fail("write", path, resolved.empty() ? ENOENT : EISDIR);
    struct stat status;
    if (::lstat(resolved.c_str(), &status) != 0) {
      if (errno == ENOENT) return resolved;  // a missing folder shows when the file is created
      fail("write", path, errno);
    }
    if (!S_ISLNK(status.st_mode)) {
      require_regular(status, "replace", path);
      return resolved;
    }
    const std::string target = read_link(resolved, path);
    const bool absolute = !target.empty() && target[0] == '/';
    resolved = absolute ? target : beside(resolved, target);
  }
  fail("write", path, ELOOP);
}

// A temporary file is locked as long as its maker lives, whatever ends it: who gets the lock knows
// that the file is nobody's. Process numbers would not tell: they repeat, and differ by container.
enum class Lock { held, taken_by_other, impossible };

Lock lock_file(int descriptor) noexcept {
  if (uninterrupted([&] { return ::flock(descriptor, LOCK_EX | LOCK_NB); }) == 0) return Lock::held;
  return errno == EWOULDBLOCK ? Lock::taken_by_other : Lock::impossible;
}

bool is_named(int descriptor, const std::string& path) noexcept {
  struct stat own, named;
  return ::fstat(descriptor, &own) == 0 && ::lstat(path.c_str(), &named) == 0 &&
         own.st_dev == named.st_dev && own.st_ino == named.st_ino;
}

void remove_if_leftover(const std::string& path) noexcept {
  constexpr int kFlags = O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW;  // NFS locks writers only
  const Descriptor file(uninterrupted([&] { return ::open(path.c_str(), kFlags); }));
  struct stat status;
  if (file.get() < 0 || ::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode)) return;
  if (lock_file(file.get()) == Lock::held && is_named(file.get(), path)) ::unlink(path.c_str());
}

// Removes what makers of the same file left who were killed. Best effort: it is not what was asked.
void remove_leftovers(const std::string& destination) {
  const std::string folder = folder_of(destination);
  const std::string prefix = temporary_prefix(destination);
  DIR* listing = ::opendir(folder.c_str());
  if (listing == nullptr) return;
  std::vector<std::string> found;
  while (const dirent* entry = ::readdir(listing)) {
    if (is_temporary_name(entry->d_name, prefix))
      found.push_back(beside(destination, entry->d_name));
  }
  ::closedir(listing);
  for (const std::string& path : found) remove_if_leftover(path);
}

// A file that has no name yet: nothing stays of it when its maker is killed. -1 where the system
// has none.
int open_nameless(const std::string& folder) noexcept {
#if defined(O_TMPFILE)
  return uninterrupted(
      [&] { return ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, kNewFileMode); });
#else
  static_cast<void>(folder);
  return -1;
#endif
}

// Gives such a file a new name. -1 and errno on failure.
int give_name(int descriptor, const std::string& path) noexcept {
  char handle[40];
  std::snprintf(handle, sizeof handle, "/proc/self/fd/%d", descriptor);
  return ::linkat(AT_FDCWD, handle, AT_FDCWD, path.c_str(), AT_SYMLINK_FOLLOW);
}

// Whether a file without a name can get one here, tried out with an empty one: what it depends on
// (the filesystem, /proc, what a sandbox allows) would otherwise show when all is written.
bool can_give_names(const std::string& destination) {
  const Descriptor trial(open_nameless(folder_of(destination)));
  if (trial.get() < 0) return false;
  lock_file(trial.get());
  const std::string path = next_temporary_path(destination, ::getpid());
  if (give_name(trial.get(), path) != 0) return false;
  ::unlink(path.c_str());
  return true;
}

// A new file of a temporary name, locked where that is possible. -1 and errno on failure.
int open_temporary(const std::string& destination, std::string* path) {
  for (int tries = 0; tries < kMaxNameTries; ++tries) {
    *path = next_temporary_path(destination, ::getpid());
    Descriptor file(uninterrupted([&] {
      return ::open(path->c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, kNewFileMode);
    }));
    if (file.get() < 0 && errno == EEXIST) continue;  // of a process with our number elsewhere
    if (file.get() < 0) return -1;
    // Between the two calls someone may have taken it for a leftover.
    const Lock lock = lock_file(file.get());
    if (lock == Lock::impossible || (lock == Lock::held && is_named(file.get(), *path))) {
      return file.give_away();
    }
  }
  errno = EEXIST;
  return -1;
}

// Only the superuser gives files to others; a group may be one that the process is in.
void give_away_to(int descriptor, uid_t owner, gid_t group) noexcept {
  constexpr uid_t kSameOwner = static_cast<uid_t>(-1);
  bool given = ::fchown(descriptor, owner, group) == 0;
  if (!given) given = ::fchown(descriptor, kSameOwner, group) == 0;
  static_cast<void>(given);
}

// Owner and permissions are those of the file that is replaced, as far as this process may set
// them: readers of the old one must be able to read the new one.
void keep_owner_and_mode(int descriptor, const std::string& destination) noexcept {
  struct stat old, own;
  if (::lstat(destination.c_str(), &old) != 0 || !S_ISREG(old.st_mode)) return;
  if (::fstat(descriptor, &own) != 0) return;
  const bool differs = own.st_uid != old.st_uid || own.st_gid != old.st_gid;
  if (differs) give_away_to(descriptor, old.st_uid, old.st_gid);
  ::fchmod(descriptor, old.st_mode & 0777);
}

// Writes at the descriptor's position (`at` null) or at an offset.
void write_all(int descriptor, const void* data, std::uint64_t bytes, const std::uint64_t* at,
               const std::string& path) {
  const std::byte* from = static_cast<const std::byte*>(data);
  std::uint64_t done = 0;
  while (done < bytes) {
    const std::size_t step = std::min(bytes - done, kWriteBytes);
    const ssize_t written = uninterrupted([&] {
      return at == nullptr
                 ? ::write(descriptor, from + done, step)
                 : ::pwrite(descriptor, from + done, step, static_cast<off_t>(*at + done));
    });
    if (written < 0) fail("write", path, errno);
    if (written == 0) fail("write", path, EIO);  // never for a regular file; would loop for ever
    done += static_cast<std::uint64_t>(written);
  }
}

void write_zeros(int descriptor, std::uint64_t offset, std::uint64_t bytes,
                 const std::string& path) {
  const std::vector<std::byte> zeros(std::min<std::uint64_t>(bytes, std::uint64_t{1} << 20));
  for (std::uint64_t done = 0; done < bytes;) {
    const std::uint64_t step = std::min<std::uint64_t>(bytes - done, zeros.size());
    const std::uint64_t at = offset + done;
    write_all(descriptor, zeros.data(), step, &at, path);
    done += step;
  }
}

// Gives [offset, offset + bytes) of a new file real disk blocks. Returns 0, an errno, or
// EOPNOTSUPP where the system cannot.
int reserve_blocks(int descriptor, std::uint64_t offset, std::uint64_t bytes) noexcept {
#if defined(__APPLE__)
  fstore_t request = {};
  request.fst_flags = F_ALLOCATEALL;
  request.fst_posmode = F_PEOFPOSMODE;
  request.fst_length = static_cast<off_t>(bytes);
  if (::fcntl(descriptor, F_PREALLOCATE, &request) == -1) {
    return errno == ENOSPC || errno == EFBIG ? errno : EOPNOTSUPP;
  }
  return ::ftruncate(descriptor, static_cast<off_t>(offset + bytes)) == 0 ? 0 : errno;
#else
  int result;
  do {
    result = ::posix_fallocate(descriptor, static_cast<off_t>(offset), static_cast<off_t>(bytes));
  } while (result == EINTR);
  return result == EINVAL || result == ENOSYS ? EOPNOTSUPP : result;
#endif
}

void reserve(int descriptor, std::uint64_t bytes, const std::string& path) {
  for (std::uint64_t offset = 0; offset < bytes;) {
    const std::uint64_t step = std::min(bytes - offset, kReserveBytes);
    const int result = reserve_blocks(descriptor, offset, step);
    if (result == EOPNOTSUPP) {
      write_zeros(descriptor, offset, step, path);
    } else if (result != 0) {
      fail("reserve disk space for", path, result);
    }
    offset += step;
  }
}

// Forces a file to the disk itself, not only to the drive's cache. -1 and errno on failure.
int force_to_disk(int descriptor) noexcept {
#if defined(F_FULLFSYNC)
  if (::fcntl(descriptor, F_FULLFSYNC) != -1) return 0;
#endif
  return uninterrupted([&] { return ::fsync(descriptor); });
}

bool cannot_sync_folders(int os_errno) noexcept {
  return os_errno == EINVAL || os_errno == ENOTSUP || os_errno == EOPNOTSUPP || os_errno == EBADF;
}

// Reads one range of a mapping into memory. `populate` remembers whether the system can do so in
// one call, which also reports a file cut short as an error where touching would raise SIGBUS.
void read_ahead(std::byte* data, std::uint64_t bytes, bool* populate, const std::string& path) {
  ::madvise(data, bytes, MADV_WILLNEED);
#if defined(__linux__)
  constexpr int kPopulateRead = 22;  // MADV_POPULATE_READ, Linux 5.14; absent from older headers
  if (*populate) {
    if (uninterrupted([&] { return ::madvise(data, bytes, kPopulateRead); }) == 0) return;
    if (errno != EINVAL) fail("read", path, errno);
    *populate = false;
  }
#else
  static_cast<void>(populate);
  static_cast<void>(path);
#endif
  const volatile std::byte* page = data;
  for (std::uint64_t at = 0; at < bytes; at += page_bytes()) static_cast<void>(page[at]);
}

}  // namespace

FileStamp stamp_of(const std::string& path) {
  struct stat status;
  if (::stat(path.c_str(), &status) != 0) fail("examine", path, errno);
  return stamp_from(status);
}

std::unique_ptr<Memory> allocate_anonymous(std::uint64_t bytes) {
  return std::make_unique<AnonymousMemory>(bytes);
}

// O_NONBLOCK: opening a pipe must fail, not wait for its writer.
MappedFile::MappedFile(const std::string& path) : path_(path) {
  const Descriptor file(
      uninterrupted([&] { return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK); }));
  if (file.get() < 0) fail("open", path, errno);
  struct stat status;
  if (::fstat(file.get(), &status) != 0) fail("examine", path, errno);
  require_regular(status, "map", path);
  stamp_ = stamp_from(status);
  bytes_ = stamp_.bytes;
  if (bytes_ == 0) return;
  void* place = ::mmap(nullptr, bytes_, PROT_READ, MAP_SHARED, file.get(), 0);
  if (place == MAP_FAILED) fail("map", path, errno);
  data_ = static_cast<std::byte*>(place);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

void MappedFile::release(std::uint64_t offset, std::uint64_t bytes) noexcept {
  drop_range(data_, bytes_, offset, bytes);
}

void MappedFile::warm() const {
  if (data_ == nullptr) return;
  // Under MADV_RANDOM each page would be a read of its own.
  ::madvise(data_, bytes_, MADV_NORMAL);
  bool populate = true;
  for (std::uint64_t offset = 0; offset < bytes_; offset += kWarmBytes) {
    read_ahead(data_ + offset, std::min(kWarmBytes, bytes_ - offset), &populate, path_);
  }
}

void MappedFile::lock() {
  if (data_ == nullptr) return;
  if (::mlock(data_, bytes_) != 0) fail("lock in memory", path_, errno);
}

std::uint64_t MappedFile::resident_bytes() const {
#if defined(__APPLE__)
  using Presence = char;
#else
  using Presence = unsigned char;
#endif
  constexpr std::uint64_t kPagesAtOnce = 1 << 16;
  const std::uint64_t page = page_bytes();
  std::vector<Presence> presence(std::min(kPagesAtOnce, (bytes_ + page - 1) / page));
  std::uint64_t resident = 0;
  for (std::uint64_t offset = 0; offset < bytes_; offset += kPagesAtOnce * page) {
    const std::uint64_t bytes = std::min(kPagesAtOnce * page, bytes_ - offset);
    if (::mincore(data_ + offset, bytes, presence.data()) != 0) {
      fail("examine the pages of", path_, errno);
    }
    for (std::uint64_t at = 0; at < bytes; at += page) {
      if ((presence[at / page] & 1) != 0) resident += std::min(page, bytes - at);
    }
  }
  return resident;
}

void MappedFile::advise_random() const noexcept {
  if (data_ != nullptr) ::madvise(data_, bytes_, MADV_RANDOM);
}

AtomicFile::AtomicFile(std::string final_path)
    : final_path_(std::move(final_path)), destination_(resolve_destination(final_path_)) {
  remove_leftovers(destination_);
  if (can_give_names(destination_)) {
    descriptor_ = open_nameless(folder_of(destination_));
    if (descriptor_ >= 0) lock_file(descriptor_);
  }
  if (descriptor_ < 0) descriptor_ = open_temporary(destination_, &temporary_path_);
  if (descriptor_ < 0) fail("create a temporary file beside", final_path_, errno);
}

AtomicFile::~AtomicFile() {
  if (!committed_ && !temporary_path_.empty()) ::unlink(temporary_path_.c_str());
  if (descriptor_ >= 0) ::close(descriptor_);
}

void AtomicFile::append(const void* data, std::uint64_t bytes) {
  write_all(descriptor_, data, bytes, nullptr, final_path_);
}

void AtomicFile::write_at(std::uint64_t offset, const void* data, std::uint64_t bytes) {
  write_all(descriptor_, data, bytes, &offset, final_path_);
}

std::unique_ptr<Memory> AtomicFile::map_writable(std::uint64_t bytes) {
  reserve(descriptor_, bytes, final_path_);
  return std::make_unique<WritableMapping>(descriptor_, bytes, final_path_);
}

void AtomicFile::commit() {
  keep_owner_and_mode(descriptor_, destination_);
  if (force_to_disk(descriptor_) != 0) fail("write", final_path_, errno);
  // Opened before the rename, so that running out of descriptors fails while nothing has changed.
  // A folder that we may write to but not read cannot be synced; that is not the file's fault.
  const Descriptor folder(uninterrupted(
      [&] { return ::open(folder_of(destination_).c_str(), O_RDONLY | O_CLOEXEC | O_DIRECTORY); }));
  if (folder.get() < 0 && errno != EACCES) fail("open the folder of", final_path_, errno);
  // Holds the lock until the file has its final name.
  const Descriptor lock(::fcntl(descriptor_, F_DUPFD_CLOEXEC, 0));
  if (lock.get() < 0) fail("write", final_path_, errno);
  name_temporary();
  // Network filesystems may report a full disk only here. After EINTR the descriptor is gone.
  if (::close(std::exchange(descriptor_, -1)) != 0 && errno != EINTR) {
    fail("write", final_path_, errno);
  }
  if (::rename(temporary_path_.c_str(), destination_.c_str()) != 0) {
    fail("replace", final_path_, errno);
  }
  committed_ = true;
  if (folder.get() >= 0 && force_to_disk(folder.get()) != 0 && !cannot_sync_folders(errno)) {
    fail("make the new name durable of", final_path_, errno);
  }
}

// A name cannot be given in the place of another file: the new one needs its own for a moment.
void AtomicFile::name_temporary() {
  for (int tries = 0; temporary_path_.empty() && tries < kMaxNameTries; ++tries) {
    const std::string path = next_temporary_path(destination_, ::getpid());
    if (give_name(descriptor_, path) == 0) {
      temporary_path_ = path;
    } else if (errno != EEXIST) {
      break;
    }
  }
  if (temporary_path_.empty()) fail("name the file to be", final_path_, errno);
}

void release_borrowed(const void* data, std::uint64_t bytes) noexcept {
  drop_pages(static_cast<const std::byte*>(data), bytes);
}

std::uint64_t resident_file_bytes() noexcept {
  // Opened each time: a descriptor kept would tell of the parent after a fork. Not there but on
  // Linux.
  const Descriptor statm(::open("/proc/self/statm", O_RDONLY | O_CLOEXEC));
  char text[128];
  const ssize_t length = statm.get() < 0 ? -1 : ::read(statm.get(), text, sizeof(text) - 1);
  if (length <= 0) return 0;
  text[length] = '\0';
  unsigned long long shared_pages = 0;  // the third number
  if (std::sscanf(text, "%*u %*u %llu", &shared_pages) != 1) return 0;
  return shared_pages * page_bytes();
}

}  // namespace annidx

#endif
