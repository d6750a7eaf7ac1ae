// Tests of src_c/os/file: files are mapped, replaced in one step, refused with errno and path.
// Build: g++ -std=c++17 -g -O1 -fsanitize=address,undefined -Isrc_c tests/cpp/test_file.cpp
// src_c/os/*.cpp src_c/base/*.cpp
#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/syscall.h>
#endif

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "check.h"
#include "os/file.h"

using namespace annidx;
using namespace annidx_test;

// Stands for a system where a file without a name cannot get one.
static bool names_are_late = true;
#if defined(__linux__)
extern "C" int linkat(int from, const char* old_path, int to, const char* path,
                      int flags) noexcept {
  if (names_are_late) {
    return static_cast<int>(::syscall(SYS_linkat, from, old_path, to, path, flags));
  }
  errno = EPERM;
  return -1;
}
#endif

namespace {

class Folder {
 public:
  Folder() {
    char name[] = "/tmp/annidx-test-XXXXXX";
    path_ = ::mkdtemp(name);
  }
  ~Folder() {
    for (const std::string& name : names()) ::unlink((path_ + "/" + name).c_str());
    ::rmdir(path_.c_str());
  }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  std::vector<std::string> names() const {
    std::vector<std::string> found;
    DIR* folder = ::opendir(path_.c_str());
    while (const dirent* entry = ::readdir(folder)) {
      const std::string name = entry->d_name;
      if (name != "." && name != "..") found.push_back(name);
    }
    ::closedir(folder);
    std::sort(found.begin(), found.end());
    return found;
  }

 private:
  std::string path_;
};

void write_file(const std::string& path, const std::string& text) {
  AtomicFile file(path);
  file.append(text.data(), text.size());
  file.commit();
}

std::string read_file(const std::string& path) {
  const MappedFile file(path);
  std::string text;
  for (std::uint64_t i = 0; i < file.bytes(); ++i) text += static_cast<char>(file.data()[i]);
  return text;
}

// errno of the Error(io) that `call` throws; its path must be `path`. 0 when it throws none.
template <class Call>
int io_errno(const std::string& path, const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::io && error.path() == path);
    CHECK_IN(error.what(), "'" + path + "'");
    CHECK_IN(error.what(), "(errno " + std::to_string(error.os_errno()) + ")");
    return error.os_errno();
  }
  return 0;
}

int open_descriptors() {
  int count = 0;
  for (int number = 0; number < 256; ++number) count += ::fcntl(number, F_GETFD) != -1;
  return count;
}

void test_mapped_file() {
  const Folder folder;
  const std::string path = folder / "data";
  const std::string text(200000, 'x');
  write_file(path, text);
  const int descriptors = open_descriptors();
  MappedFile file(path);
  CHECK(open_descriptors() == descriptors);
  CHECK(file.bytes() == text.size() && file.path() == path && file.mutable_data() == nullptr);
  CHECK(file.stamp() == stamp_of(path) && file.stamp().bytes == text.size());
  file.advise_random();
  file.warm();
  CHECK(file.resident_bytes() == text.size());
  file.release(5000, ~0ull);
  file.release(~0ull, 1);
  CHECK(file.data()[199999] == std::byte{'x'});
  release_borrowed(file.data() + 1, file.bytes() - 1);
  CHECK(file.data()[100000] == std::byte{'x'});
  file.lock();

  write_file(path, "new");
  CHECK(!(file.stamp() == stamp_of(path)));
  CHECK(file.data()[0] == std::byte{'x'});
  CHECK(read_file(path) == "new");

  write_file(folder / "empty", "");
  MappedFile empty(folder / "empty");
  CHECK(empty.bytes() == 0 && empty.data() == nullptr && empty.resident_bytes() == 0);
  empty.warm();
  empty.lock();
  empty.advise_random();
  empty.release(0, 10);
}

void test_what_cannot_be_mapped() {
  const Folder folder;
  const auto open = [](const std::string& path) { MappedFile file(path); };
  const std::string missing = folder / "missing", pipe = folder / "pipe", dir = folder / "";
  CHECK(io_errno(missing, [&] { open(missing); }) == ENOENT);
  CHECK(io_errno(missing, [&] { stamp_of(missing); }) == ENOENT);
  CHECK(io_errno(dir, [&] { open(dir); }) == EISDIR);
  CHECK(::mkfifo(pipe.c_str(), 0600) == 0);
  CHECK(io_errno(pipe, [&] { open(pipe); }) == ENODEV);
  CHECK(io_errno("/dev/null", [&] { open("/dev/null"); }) == ENODEV);
  CHECK_IN(error_of(ErrorCode::io, [&] { open(missing); }),
           "cannot open '" + missing + "': No such file or directory (errno 2)");
}

void test_atomic_replacement() {
  const Folder folder;
  const std::string path = folder / "index";
  write_file(path, "old");
  {
    AtomicFile file(path);
    file.append("unfinished", 10);
    const auto names = folder.names();
    const bool is_named = names.size() == 2 && names[0].rfind(".index.", 0) == 0 &&
                          names[0].substr(names[0].size() - 4) == ".tmp";
    CHECK(names_are_late ? is_named || names.size() == 1 : is_named);
    CHECK(read_file(path) == "old");
  }
  CHECK(folder.names() == std::vector<std::string>{"index"} && read_file(path) == "old");
  try {
    AtomicFile file(path);
    file.append("unfinished", 10);
    throw std::bad_alloc();
  } catch (const std::bad_alloc&) {
  }
  CHECK(folder.names() == std::vector<std::string>{"index"} && read_file(path) == "old");
  {
    AtomicFile one(path), two(path);
    one.append("one", 3);
    two.append("twotwo", 6);
    two.write_at(1, "W", 1);
    one.commit();
    CHECK(read_file(path) == "one");
    two.commit();
  }
  CHECK(folder.names() == std::vector<std::string>{"index"} && read_file(path) == "tWotwo");
}

void test_writable_mapping() {
  const Folder folder;
  const std::string path = folder / "index";
  const int descriptors = open_descriptors();
  {
    AtomicFile file(path);
    auto memory = file.map_writable(100000);
    CHECK(memory->bytes() == 100000 && memory->mutable_data() == memory->data());
    CHECK(memory->data()[99999] == std::byte{0});
    memory->mutable_data()[70000] = std::byte{'a'};
    memory->release(0, 100000);
    CHECK(memory->data()[70000] == std::byte{'a'});
    memory.reset();
    file.write_at(100000, "tail", 4);
    file.commit();
  }
  const std::string text = read_file(path);
  CHECK(text.size() == 100004 && text[70000] == 'a' && text.substr(100000) == "tail");
  AtomicFile none(path);
  CHECK(none.map_writable(0)->data() == nullptr);
  CHECK(open_descriptors() == descriptors + 1);
}

// Kills a process that has written half of a file.
void kill_a_maker(const std::string& path) {
  const pid_t child = ::fork();
  if (child == 0) {
    AtomicFile file(path);
    file.map_writable(100000);
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  CHECK(::waitpid(child, &status, 0) == child && WIFSIGNALED(status));
}

void test_leftovers() {
  const Folder folder;
  const std::string path = folder / "index";
  const auto touch = [](const std::string& name) {
    const int made = ::open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(made >= 0);
    return made;
  };
  const std::vector<std::string> foreign = {".index.1.2.tmp2", ".index.1.tmp", ".index.1.x.tmp",
                                            ".index..2.tmp", ".indexes.1.2.tmp"};
  for (const std::string& name : foreign) ::close(touch(folder / name));
  ::close(touch(folder / ".index.123.4.tmp"));
  const int living = touch(folder / ".index.123.5.tmp");
  CHECK(::flock(living, LOCK_EX) == 0);
  CHECK(::symlink("nowhere", (folder / ".index.123.6.tmp").c_str()) == 0);
  kill_a_maker(path);
  CHECK(folder.names().size() == foreign.size() + (names_are_late ? 2 : 3));
  {
    AtomicFile other(path);  // lives while the next one looks for leftovers
    other.append("other", 5);
    write_file(path, "new");
    other.commit();
  }
  CHECK(read_file(path) == "other");
  std::vector<std::string> expected = foreign;
  for (const char* name : {".index.123.5.tmp", ".index.123.6.tmp", "index"}) {
    expected.emplace_back(name);
  }
  std::sort(expected.begin(), expected.end());
  CHECK(folder.names() == expected);
  ::close(living);
}

void test_permissions() {
  const Folder folder;
  const auto mode_with = [&](mode_t mask) {
    ::unlink((folder / "index").c_str());
    const mode_t before = ::umask(mask);
    write_file(folder / "index", "x");
    ::umask(before);
    struct stat status;
    CHECK(::stat((folder / "index").c_str(), &status) == 0);
    return status.st_mode & 0777;
  };
  CHECK(mode_with(022) == 0644);
  CHECK(mode_with(077) == 0600);
  CHECK(mode_with(0) == 0666);
}

void test_owner_and_mode_stay() {
  const Folder folder;
  const std::string path = folder / "index";
  write_file(path, "old");
  const bool is_superuser = ::geteuid() == 0;
  CHECK(!is_superuser || ::chown(path.c_str(), 1234, 2345) == 0);
  CHECK(::chmod(path.c_str(), 0640) == 0);
  CHECK(::symlink("index", (folder / "link").c_str()) == 0);
  write_file(folder / "link", "new");
  struct stat status;
  CHECK(::stat(path.c_str(), &status) == 0 && (status.st_mode & 07777) == 0640);
  CHECK(!is_superuser || (status.st_uid == 1234 && status.st_gid == 2345));
  CHECK(read_file(path) == "new");
}

void test_links_and_odd_destinations() {
  const Folder folder;
  const auto save = [](const std::string& path) { write_file(path, "new"); };
  write_file(folder / "target", "old");
  CHECK(::symlink("target", (folder / "link").c_str()) == 0);
  CHECK(::symlink((folder / "link").c_str(), (folder / "link2").c_str()) == 0);
  CHECK(::symlink("absent", (folder / "dangling").c_str()) == 0);
  CHECK(::symlink("loop", (folder / "loop").c_str()) == 0);
  save(folder / "link2");
  save(folder / "dangling");
  struct stat status;
  CHECK(::lstat((folder / "link").c_str(), &status) == 0 && S_ISLNK(status.st_mode));
  CHECK(read_file(folder / "target") == "new" && read_file(folder / "absent") == "new");
  const std::string loop = folder / "loop", dir = folder / "", pipe = folder / "pipe";
  const std::string lost = folder / "no/such/index", null = "/dev/null";
  CHECK(io_errno(loop, [&] { save(loop); }) == ELOOP);
  CHECK(io_errno(dir, [&] { save(dir); }) == EISDIR);
  CHECK(io_errno("/tmp", [&] { save("/tmp"); }) == EISDIR);
  CHECK(io_errno("", [&] { save(""); }) == ENOENT);
  CHECK(io_errno(lost, [&] { save(lost); }) == ENOENT);
  CHECK(io_errno(null, [&] { save(null); }) == ENODEV);
  CHECK(::mkfifo(pipe.c_str(), 0600) == 0);
  CHECK(io_errno(pipe, [&] { save(pipe); }) == ENODEV);
  std::string longest(255, 'n');
  for (std::size_t i = 1; i + 1 < longest.size(); i += 2) longest.replace(i, 2, "\xc3\xa9");
  save(folder / longest);
  CHECK(read_file(folder / longest) == "new");
}

// A disk that is full, as far as this process can tell.
void test_no_room() {
  const Folder folder;
  const std::string path = folder / "index";
  write_file(path, "old");
  struct rlimit before, limit;
  CHECK(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  std::signal(SIGXFSZ, SIG_IGN);
  limit = before;
  limit.rlim_cur = 65536;
  CHECK(::setrlimit(RLIMIT_FSIZE, &limit) == 0);
  const std::vector<char> data(100000, 'x');
  CHECK(io_errno(path, [&] {
          AtomicFile file(path);
          file.append(data.data(), 60000);
          file.append(data.data(), 60000);
        }) == EFBIG);
  CHECK(io_errno(path, [&] {
          AtomicFile file(path);
          file.write_at(1000, data.data(), data.size());
        }) == EFBIG);
  CHECK(io_errno(path, [&] { AtomicFile(path).map_writable(1000000); }) == EFBIG);
  CHECK(::setrlimit(RLIMIT_FSIZE, &before) == 0);
  CHECK(folder.names() == std::vector<std::string>{"index"} && read_file(path) == "old");
}

void test_anonymous_memory() {
  const auto memory = allocate_anonymous(1000000);
  CHECK(memory->bytes() == 1000000 && memory->mutable_data() != nullptr);
  memory->mutable_data()[5] = std::byte{1};
  memory->release(0, 1000000);
  CHECK(memory->data()[5] == std::byte{1} && memory->data()[999999] == std::byte{0});
  CHECK(allocate_anonymous(0)->data() == nullptr);
  CHECK(!error_of(ErrorCode::memory, [] { allocate_anonymous(std::uint64_t{1} << 62); }).empty());
}

void test_borrowed_memory() {
  auto text = std::make_shared<std::string>("of someone else");
  const std::weak_ptr<std::string> watched = text;
  const void* place = text->data();
  std::unique_ptr<Memory> memory = borrow(place, 15, std::move(text));
  CHECK(memory->data() == place && memory->bytes() == 15 && memory->mutable_data() == nullptr);
  memory->release(0, 15);
  CHECK(!watched.expired() && *watched.lock() == "of someone else");
  memory.reset();
  CHECK(watched.expired());
}

}  // namespace

int main() {
  test_mapped_file();
  test_what_cannot_be_mapped();
#if defined(__linux__)
  const std::vector<bool> ways = {true, false};
#else
  const std::vector<bool> ways = {false};
#endif
  for (const bool late : ways) {
    names_are_late = late;
    test_atomic_replacement();
    test_writable_mapping();
    test_leftovers();
    test_permissions();
    test_owner_and_mode_stay();
    test_links_and_odd_destinations();
    test_no_room();
  }
  test_anonymous_memory();
  test_borrowed_memory();
  return report();
}
