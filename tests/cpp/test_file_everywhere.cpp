// Tests of what src_c/os/file promises on every system; test_file.cpp knows Linux and macOS. It
// also runs under wine (tests/windows.sh). Its folder is made in the one it is started in. Build:
// g++ -std=c++17 -g -O1 -fsanitize=address,undefined -Isrc_c tests/cpp/test_file_everywhere.cpp
// src_c/os/*.cpp src_c/base/*.cpp
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#if defined(_WIN32)
#include <windows.h>
#endif

#include "base/error.h"
#include "check.h"
#include "os/file.h"

using namespace annidx;
using namespace annidx_test;

namespace {

namespace fs = std::filesystem;

class Folder {
 public:
  Folder() { fs::create_directory(path_); }
  ~Folder() { fs::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  std::vector<std::string> names() const {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(path_)) {
      found.push_back(entry.path().filename().u8string());
    }
    std::sort(found.begin(), found.end());
    return found;
  }

 private:
  std::string path_ = "test_file_everywhere.tmp";
};

using Names = std::vector<std::string>;

void write_file(const std::string& path, const std::string& text) {
  AtomicFile file(path);
  file.append(text.data(), text.size());
  file.commit();
}

std::string content_of(const Memory& memory) {
  return std::string(reinterpret_cast<const char*>(memory.data()), memory.bytes());
}

std::string read_file(const std::string& path) { return content_of(MappedFile(path)); }

// errno of the Error(io) that `call` throws; its path must be `path`. 0 when it throws none.
template <class Call>
int io_errno(const std::string& path, const Call& call) {
  try {
    call();
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::io && error.path() == path);
    CHECK_IN(error.what(), "(errno " + std::to_string(error.os_errno()) + ")");
    return error.os_errno();
  }
  return 0;
}

void test_written_bytes_are_mapped() {
  const Folder folder;
  const std::string path = folder / "d\xC3\xA4ta";  // UTF-8 on every system
  std::string text(300000, 'a');
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>('a' + i % 23);
  write_file(path, text);
  CHECK(folder.names() == Names{"d\xC3\xA4ta"});
  MappedFile file(path);
  CHECK(content_of(file) == text);
  CHECK(file.mutable_data() == nullptr);
  file.advise_random();
  file.warm();
  CHECK(file.resident_bytes() <= text.size());
  file.release(100, 200000);
  CHECK(content_of(file) == text);
  file.lock();
  CHECK(file.resident_bytes() == text.size());
}

void test_a_file_of_nothing() {
  const Folder folder;
  write_file(folder / "empty", "");
  MappedFile file(folder / "empty");
  CHECK(file.bytes() == 0 && file.data() == nullptr);
  file.warm();
  file.lock();
  CHECK(file.resident_bytes() == 0);
}

void test_writing_at_a_place() {
  const Folder folder;
  AtomicFile file(folder / "data");
  file.append("0123456789", 10);
  const char zeros[4] = {'-', '-', '-', '-'};
  file.write_at(2, zeros, 4);
  file.append("abc", 3);  // where the last append ended
  file.commit();
  CHECK(read_file(folder / "data") == "01----6789abc");
}

void test_writing_through_a_mapping() {
  const Folder folder;
  const std::string path = folder / "data";
  {
    AtomicFile file(path);
    auto memory = file.map_writable(200000);
    CHECK(memory->bytes() == 200000 && memory->mutable_data() == memory->data());
    CHECK(std::count(memory->data(), memory->data() + 200000, std::byte{0}) == 200000);
    std::memset(memory->mutable_data(), 'm', 200000);
    memory->release(0, 200000);
    CHECK(memory->data()[199999] == std::byte{'m'});
    file.write_at(10, "w", 1);
    CHECK(memory->data()[10] == std::byte{'w'});
    memory.reset();
    file.commit();
  }
  std::string expected(200000, 'm');
  expected[10] = 'w';
  CHECK(read_file(path) == expected);
}

void test_nothing_stays_of_a_file_that_is_given_up() {
  const Folder folder;
  write_file(folder / "data", "old");
  {
    AtomicFile file(folder / "data");
    file.append("new", 3);
    CHECK(read_file(folder / "data") == "old");
  }
  CHECK(read_file(folder / "data") == "old");
  CHECK(folder.names() == Names{"data"});
}

void test_a_mapped_file_is_replaced() {
  const Folder folder;
  const std::string path = folder / "data";
  write_file(path, "old");
  {
    const MappedFile before(path);
    CHECK(before.stamp() == stamp_of(path));
    write_file(path, "newer");
    CHECK(content_of(before) == "old");
    CHECK(!(before.stamp() == stamp_of(path)));
    const MappedFile after(path);
    CHECK(content_of(after) == "newer" && after.stamp() == stamp_of(path));
    write_file(path, "newest");
    CHECK(content_of(before) == "old" && content_of(after) == "newer");
  }
  // What was kept for those who had it mapped goes with the next file.
  write_file(path, "last");
  CHECK(read_file(path) == "last");
  CHECK(folder.names() == Names{"data"});
}

void test_leftovers_are_removed() {
  const Folder folder;
  write_file(folder / ".data.123.4.tmp", "of one that was killed");
  write_file(folder / ".data.x.4.tmp", "of somebody else");
  AtomicFile living(folder / "data");
  living.append("living", 6);
  write_file(folder / "data", "other");  // must not take the living one for a leftover
  living.commit();
  CHECK(read_file(folder / "data") == "living");
  CHECK((folder.names() == Names{".data.x.4.tmp", "data"}));
}

void test_refusals() {
  const Folder folder;
  const std::string absent = folder / "absent";
  fs::create_directory(folder / "folder");
  const std::string sub = folder / "folder", deep = folder / "nowhere/data";
  CHECK(io_errno(absent, [&] { MappedFile file(absent); }) == ENOENT);
  CHECK(io_errno(absent, [&] { stamp_of(absent); }) == ENOENT);
  CHECK(io_errno(sub, [&] { MappedFile file(sub); }) == EISDIR);
  CHECK(io_errno(sub, [&] { AtomicFile file(sub); }) == EISDIR);
  CHECK(io_errno(deep, [&] { AtomicFile file(deep); }) == ENOENT);
  CHECK(io_errno(sub + "/", [&] { AtomicFile file(sub + "/"); }) == EISDIR);
  CHECK(io_errno("", [&] { AtomicFile file(""); }) == ENOENT);
}

void test_memory() {
  const auto memory = allocate_anonymous(1 << 20);
  CHECK(reinterpret_cast<std::uintptr_t>(memory->data()) % 64 == 0);
  CHECK(std::count(memory->data(), memory->data() + (1 << 20), std::byte{0}) == 1 << 20);
  memory->mutable_data()[5] = std::byte{7};
  memory->release(0, 1 << 20);
  CHECK(memory->data()[5] == std::byte{7});
  CHECK(!error_of(ErrorCode::memory, [] { allocate_anonymous(std::uint64_t{1} << 60); }).empty());
}

#if defined(_WIN32)
// Another program's handle, which lets us rename the file or does not.
class Reader {
 public:
  Reader(const std::string& path, DWORD share)
      : handle_(
            ::CreateFileA(path.c_str(), GENERIC_READ, share, nullptr, OPEN_EXISTING, 0, nullptr)) {
    CHECK(handle_ != INVALID_HANDLE_VALUE);
  }
  ~Reader() { ::CloseHandle(handle_); }

 private:
  HANDLE handle_;
};

void test_an_open_file_is_moved_aside() {
  const Folder folder;
  const std::string path = folder / "data";
  write_file(path, "old");
  {
    const Reader reader(path, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE);
    write_file(path, "new");
    CHECK(read_file(path) == "new");
  }
  write_file(path, "newest");
  CHECK(folder.names() == Names{"data"});
}

void test_who_does_not_share_keeps_the_file() {
  const Folder folder;
  const std::string path = folder / "data";
  write_file(path, "old");
  {
    const Reader reader(path, FILE_SHARE_READ);
    CHECK(io_errno(path, [&] { write_file(path, "new"); }) == EACCES);
  }
  CHECK(read_file(path) == "old");
  CHECK(folder.names() == Names{"data"});
}
#endif

}  // namespace

int main() {
  test_written_bytes_are_mapped();
  test_a_file_of_nothing();
  test_writing_at_a_place();
  test_writing_through_a_mapping();
  test_nothing_stays_of_a_file_that_is_given_up();
  test_a_mapped_file_is_replaced();
  test_leftovers_are_removed();
  test_refusals();
  test_memory();
#if defined(_WIN32)
  test_an_open_file_is_moved_aside();
  test_who_does_not_share_keeps_the_file();
#endif
  return report();
}
