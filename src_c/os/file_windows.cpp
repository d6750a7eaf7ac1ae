// file_windows.cpp owns the calls to Windows for files and memory. It must not know what the bytes
// mean, and it holds no algorithm.
//
// Paths are UTF-8, as Python gives them. Every failure is an Error(io) with the errno that comes
// nearest, the number of Windows' own error and the path that the caller gave, except failed
// allocations, which are Error(memory).

#include "os/file.h"

#if defined(_WIN32)

#if !defined(NOMINMAX)
#define NOMINMAX
#endif
#define WIN32_LEAN_AND_MEAN
#include <fcntl.h>
#include <io.h>
#include <windows.h>

#include <psapi.h>  // after windows.h, whose names it needs

#include <algorithm>
#include <cerrno>
#include <cwchar>
#include <system_error>
#include <utility>
#include <vector>

#include "base/error.h"
#include "os/failure.h"
#include "os/names.h"

namespace annidx {
namespace {

static_assert(sizeof(std::size_t) == 8, "annidx maps whole files: it needs 64-bit addresses");

// One WriteFile moves at most this much; its count has 32 bits.
constexpr std::uint64_t kWriteBytes = std::uint64_t{1} << 30;
// One step of reading ahead.
constexpr std::uint64_t kWarmBytes = std::uint64_t{16} << 20;
constexpr int kMaxNameTries = 10000;
// What others may do with a file that we read: all, so that it can be replaced.
constexpr DWORD kShareAll = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;

int errno_of(DWORD error) noexcept {
  switch (error) {
    case ERROR_FILE_NOT_FOUND:
    case ERROR_PATH_NOT_FOUND:
    case ERROR_BAD_NETPATH:
    case ERROR_INVALID_NAME: return ENOENT;
    case ERROR_ACCESS_DENIED:
    case ERROR_SHARING_VIOLATION:
    case ERROR_LOCK_VIOLATION:
    case ERROR_USER_MAPPED_FILE: return EACCES;
    case ERROR_FILE_EXISTS:
    case ERROR_ALREADY_EXISTS: return EEXIST;
    case ERROR_DISK_FULL:
    case ERROR_HANDLE_DISK_FULL: return ENOSPC;
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_OUTOFMEMORY:
    case ERROR_COMMITMENT_LIMIT:
    case ERROR_WORKING_SET_QUOTA: return ENOMEM;
    case ERROR_TOO_MANY_OPEN_FILES: return EMFILE;
    case ERROR_WRITE_PROTECT: return EROFS;
    case ERROR_FILE_TOO_LARGE: return EFBIG;
    default: return EIO;
  }
}

[[noreturn]] void fail_with(const char* action, const std::string& path, DWORD error) {
  const int os_errno = errno_of(error);
  fail_because(
      action, path, os_errno,
      std::generic_category().message(os_errno) + ", Windows error " + std::to_string(error));
}

std::wstring wide(const std::string& text) {
  const int bytes = static_cast<int>(std::min<std::size_t>(text.size(), 1 << 20));
  const int length =
      ::MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text.data(), bytes, nullptr, 0);
  if (length == 0 && bytes != 0) fail_because("read", text, EINVAL, "the path is not UTF-8");
  std::wstring result(static_cast<std::size_t>(length), L'\0');
  ::MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text.data(), bytes, result.data(), length);
  return result;
}

std::string narrow(const wchar_t* text, std::size_t length) {
  const int units = static_cast<int>(length);
  const int bytes = ::WideCharToMultiByte(CP_UTF8, 0, text, units, nullptr, 0, nullptr, nullptr);
  std::string result(static_cast<std::size_t>(bytes), '\0');
  ::WideCharToMultiByte(CP_UTF8, 0, text, units, result.data(), bytes, nullptr, nullptr);
  return result;
}

// Closes a handle unless it was given away. Both of Windows' ways to say "none" are none.
class Handle {
 public:
  explicit Handle(HANDLE handle) noexcept
      : handle_(handle == INVALID_HANDLE_VALUE ? nullptr : handle) {}
  ~Handle() {
    if (handle_ != nullptr) ::CloseHandle(handle_);
  }
  Handle(const Handle&) = delete;
  Handle& operator=(const Handle&) = delete;
  explicit operator bool() const noexcept { return handle_ != nullptr; }
  HANDLE get() const noexcept { return handle_; }
  HANDLE give_away() noexcept { return std::exchange(handle_, nullptr); }

 private:
  HANDLE handle_;
};

HANDLE handle_of(int descriptor) noexcept {
  return reinterpret_cast<HANDLE>(::_get_osfhandle(descriptor));
}

bool is_folder(const std::wstring& path) noexcept {
  const DWORD attributes = ::GetFileAttributesW(path.c_str());
  return attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
}

// A file to look at or to map; backup semantics open folders as well, for their stamp.
HANDLE open_existing(const std::wstring& path, DWORD access, DWORD flags) noexcept {
  return ::CreateFileW(path.c_str(), access, kShareAll, nullptr, OPEN_EXISTING, flags, nullptr);
}

FileStamp stamp_from(HANDLE file, const std::string& path) {
  BY_HANDLE_FILE_INFORMATION facts;
  if (!::GetFileInformationByHandle(file, &facts)) fail_with("examine", path, ::GetLastError());
  const auto joined = [](DWORD high, DWORD low) {
    return (static_cast<std::uint64_t>(high) << 32) | low;
  };
  FileStamp stamp;
  stamp.device = facts.dwVolumeSerialNumber;
  stamp.inode = joined(facts.nFileIndexHigh, facts.nFileIndexLow);
  stamp.bytes = joined(facts.nFileSizeHigh, facts.nFileSizeLow);
  const FILETIME& modified = facts.ftLastWriteTime;  // counts 100 ns
  stamp.modified_ns = static_cast<std::int64_t>(
      joined(modified.dwHighDateTime, modified.dwLowDateTime) * std::uint64_t{100});
  return stamp;
}

std::uint64_t page_bytes() noexcept {
  static const std::uint64_t bytes = [] {
    SYSTEM_INFO facts;
    ::GetSystemInfo(&facts);
    return std::uint64_t{facts.dwPageSize};
  }();
  return bytes;
}

// Takes the whole pages inside a range out of this process: unlocking pages that nobody has locked
// does that, and reports an error that means nothing. Their content stays in the file.
void drop_pages(const std::byte* data, std::uint64_t bytes) noexcept {
  const std::uint64_t page = page_bytes();
  const std::uint64_t begin = reinterpret_cast<std::uint64_t>(data);
  const std::uint64_t first = (begin + page - 1) / page * page;
  const std::uint64_t end = (begin + bytes) / page * page;
  if (first < end) ::VirtualUnlock(reinterpret_cast<void*>(first), end - first);
}

void drop_range(const std::byte* data, std::uint64_t total, std::uint64_t offset,
                std::uint64_t bytes) noexcept {
  if (offset >= total) return;
  drop_pages(data + offset, std::min(bytes, total - offset));
}

// A view of a whole file. The view keeps what it needs: both handles are closed again.
std::byte* map_whole(HANDLE file, DWORD protection, DWORD access, const std::string& path) {
  const Handle section(::CreateFileMappingW(file, nullptr, protection, 0, 0, nullptr));
  if (!section) fail_with("map", path, ::GetLastError());
  void* place = ::MapViewOfFile(section.get(), access, 0, 0, 0);
  if (place == nullptr) fail_with("map", path, ::GetLastError());
  return static_cast<std::byte*>(place);
}

class AnonymousMemory final : public Memory {
 public:
  explicit AnonymousMemory(std::uint64_t bytes) {
    bytes_ = bytes;
    writable_ = true;
    if (bytes == 0) return;
    void* place = ::VirtualAlloc(nullptr, bytes, MEM_RESERVE | MEM_COMMIT, PAGE_READWRITE);
    if (place == nullptr) {
      throw Error(ErrorCode::memory,
                  "cannot allocate " + std::to_string(bytes) + " bytes: " + described(ENOMEM));
    }
    data_ = static_cast<std::byte*>(place);
  }
  ~AnonymousMemory() override {
    if (data_ != nullptr) ::VirtualFree(data_, 0, MEM_RELEASE);
  }
  void release(std::uint64_t, std::uint64_t) noexcept override {}
};

class WritableMapping final : public Memory {
 public:
  WritableMapping(HANDLE file, std::uint64_t bytes, const std::string& path) {
    bytes_ = bytes;
    writable_ = true;
    if (bytes != 0) data_ = map_whole(file, PAGE_READWRITE, FILE_MAP_WRITE, path);
  }
  // Flushing the file alone, as commit() does, leaves out what was written through a view.
  ~WritableMapping() override {
    if (data_ == nullptr) return;
    ::FlushViewOfFile(data_, 0);
    ::UnmapViewOfFile(data_);
  }
  void release(std::uint64_t offset, std::uint64_t bytes) noexcept override {
    drop_range(data_, bytes_, offset, bytes);
  }
};

// The file that a symbolic link leads to, so that the link stays when the file is replaced.
std::string target_of_link(const std::string& path) {
  const Handle file(open_existing(wide(path), 0, FILE_ATTRIBUTE_NORMAL));
  if (!file) fail_with("read the link", path, ::GetLastError());
  std::vector<wchar_t> target(32768);  // the longest path that Windows has
  const DWORD length = ::GetFinalPathNameByHandleW(
      file.get(), target.data(), static_cast<DWORD>(target.size()), FILE_NAME_NORMALIZED);
  if (length == 0 || length >= target.size()) fail_with("read the link", path, ::GetLastError());
  return narrow(target.data(), length);
}

std::string resolve_destination(const std::string& path) {
  if (name_of(path).empty()) fail("write", path, path.empty() ? ENOENT : EISDIR);
  const DWORD attributes = ::GetFileAttributesW(wide(path).c_str());
  if (attributes == INVALID_FILE_ATTRIBUTES) return path;  // new, or shows when it is created
  if ((attributes & FILE_ATTRIBUTE_DIRECTORY) != 0) fail("replace", path, EISDIR);
  if ((attributes & FILE_ATTRIBUTE_REPARSE_POINT) != 0) return target_of_link(path);
  return path;
}

// Removes what makers of the same file left who were killed, and files that were moved aside and
// are not mapped any more. Best effort; what somebody has open as its maker, or has mapped, stays.
void remove_leftovers(const std::string& destination) {
  const std::string prefix = temporary_prefix(destination);
  WIN32_FIND_DATAW entry;
  const HANDLE listing = ::FindFirstFileW(wide(beside(destination, prefix + "*")).c_str(), &entry);
  if (listing == INVALID_HANDLE_VALUE) return;
  do {
    const std::string name = narrow(entry.cFileName, std::wcslen(entry.cFileName));
    if (is_temporary_name(name, prefix)) ::DeleteFileW(wide(beside(destination, name)).c_str());
  } while (::FindNextFileW(listing, &entry));
  ::FindClose(listing);
}

long process_number() noexcept { return static_cast<long>(::GetCurrentProcessId()); }

// A new file of a temporary name, which nobody else can delete or write to while it is open: that
// is how it is told from a leftover.
HANDLE open_temporary(const std::string& destination, std::string* path) {
  for (int tries = 0; tries < kMaxNameTries; ++tries) {
    *path = next_temporary_path(destination, process_number());
    const HANDLE file =
        ::CreateFileW(wide(*path).c_str(), GENERIC_READ | GENERIC_WRITE | DELETE, FILE_SHARE_READ,
                      nullptr, CREATE_NEW, FILE_ATTRIBUTE_NORMAL, nullptr);
    if (file != INVALID_HANDLE_VALUE || ::GetLastError() != ERROR_FILE_EXISTS) return file;
  }
  return INVALID_HANDLE_VALUE;
}

// Writes at the file's position (`at` null) or at an offset, which leaves the position alone.
void write_all(HANDLE file, const void* data, std::uint64_t bytes, const std::uint64_t* at,
               const std::string& path) {
  LARGE_INTEGER position = {};
  if (at != nullptr && !::SetFilePointerEx(file, {}, &position, FILE_CURRENT)) {
    fail_with("write", path, ::GetLastError());
  }
  const std::byte* from = static_cast<const std::byte*>(data);
  for (std::uint64_t done = 0; done < bytes;) {
    OVERLAPPED place = {};
    if (at != nullptr) {
      place.Offset = static_cast<DWORD>(*at + done);
      place.OffsetHigh = static_cast<DWORD>((*at + done) >> 32);
    }
    DWORD written = 0;
    const DWORD step = static_cast<DWORD>(std::min(bytes - done, kWriteBytes));
    if (!::WriteFile(file, from + done, step, &written, at == nullptr ? nullptr : &place)) {
      fail_with("write", path, ::GetLastError());
    }
    if (written == 0) fail("write", path, EIO);  // would loop for ever
    done += written;
  }
  if (at != nullptr) ::SetFilePointerEx(file, position, nullptr, FILE_BEGIN);
}

// Sets the size, for which the system takes disk space at once: these files are not sparse.
void reserve(HANDLE file, std::uint64_t bytes, const std::string& path) {
  FILE_END_OF_FILE_INFO end;
  end.EndOfFile.QuadPart = static_cast<LONGLONG>(bytes);
  if (!::SetFileInformationByHandle(file, FileEndOfFileInfo, &end, sizeof end)) {
    fail_with("reserve disk space for", path, ::GetLastError());
  }
}

// 0, or Windows' error. The write is on the disk when the move is.
DWORD move_over(const std::wstring& from, const std::wstring& to) noexcept {
  constexpr DWORD kFlags = MOVEFILE_REPLACE_EXISTING | MOVEFILE_WRITE_THROUGH;
  return ::MoveFileExW(from.c_str(), to.c_str(), kFlags) ? 0 : ::GetLastError();
}

// A file that is mapped or open may not be replaced, but it may be called something else: it
// becomes a temporary file of the destination, which is removed with the next one that nobody has
// mapped. For a moment there is no file of the final name.
DWORD replace_by_moving_aside(const std::wstring& made, const std::string& destination) {
  const std::wstring final_path = wide(destination);
  const std::wstring aside = wide(next_temporary_path(destination, process_number()));
  if (!::MoveFileExW(final_path.c_str(), aside.c_str(), 0)) return ::GetLastError();
  const DWORD error = move_over(made, final_path);
  if (error != 0) {
    ::MoveFileExW(aside.c_str(), final_path.c_str(), 0);
    return error;
  }
  ::DeleteFileW(aside.c_str());
  return 0;
}

bool is_in_use(DWORD error) noexcept {
  return error == ERROR_ACCESS_DENIED || error == ERROR_SHARING_VIOLATION ||
         error == ERROR_USER_MAPPED_FILE;
}

// Reads one range of a mapping into memory.
void read_ahead(std::byte* data, std::uint64_t bytes) noexcept {
  WIN32_MEMORY_RANGE_ENTRY range = {data, bytes};
  ::PrefetchVirtualMemory(::GetCurrentProcess(), 1, &range, 0);
  const volatile std::byte* page = data;
  for (std::uint64_t at = 0; at < bytes; at += page_bytes()) static_cast<void>(page[at]);
}

}  // namespace

FileStamp stamp_of(const std::string& path) {
  const Handle file(open_existing(wide(path), 0, FILE_FLAG_BACKUP_SEMANTICS));
  if (!file) fail_with("examine", path, ::GetLastError());
  return stamp_from(file.get(), path);
}

std::unique_ptr<Memory> allocate_anonymous(std::uint64_t bytes) {
  return std::make_unique<AnonymousMemory>(bytes);
}

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const std::wstring name = wide(path);
  if (is_folder(name)) fail("map", path, EISDIR);
  const Handle file(open_existing(name, GENERIC_READ, FILE_FLAG_RANDOM_ACCESS));
  if (!file) fail_with("open", path, ::GetLastError());
  if (::GetFileType(file.get()) != FILE_TYPE_DISK) {
    fail_because("map", path, ENODEV, "it is not a regular file");
  }
  stamp_ = stamp_from(file.get(), path);
  bytes_ = stamp_.bytes;
  if (bytes_ != 0) data_ = map_whole(file.get(), PAGE_READONLY, FILE_MAP_READ, path);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::UnmapViewOfFile(data_);
}

void MappedFile::release(std::uint64_t offset, std::uint64_t bytes) noexcept {
  drop_range(data_, bytes_, offset, bytes);
}

void MappedFile::warm() const {
  for (std::uint64_t offset = 0; offset < bytes_; offset += kWarmBytes) {
    read_ahead(data_ + offset, std::min(kWarmBytes, bytes_ - offset));
  }
}

// A process may lock no more than the least working set it has asked for.
void MappedFile::lock() {
  if (data_ == nullptr) return;
  const HANDLE self = ::GetCurrentProcess();
  SIZE_T least = 0, most = 0;
  if (::GetProcessWorkingSetSize(self, &least, &most)) {
    ::SetProcessWorkingSetSize(self, least + bytes_ + page_bytes(), most + bytes_ + page_bytes());
  }
  if (!::VirtualLock(data_, bytes_)) fail_with("lock in memory", path_, ::GetLastError());
}

std::uint64_t MappedFile::resident_bytes() const {
  constexpr std::uint64_t kPagesAtOnce = 1 << 14;
  const std::uint64_t page = page_bytes();
  std::vector<PSAPI_WORKING_SET_EX_INFORMATION> pages;
  std::uint64_t resident = 0;
  for (std::uint64_t offset = 0; offset < bytes_; offset += kPagesAtOnce * page) {
    const std::uint64_t bytes = std::min(kPagesAtOnce * page, bytes_ - offset);
    pages.assign((bytes + page - 1) / page, {});
    for (std::size_t i = 0; i < pages.size(); ++i) {
      pages[i].VirtualAddress = data_ + offset + i * page;
    }
    const DWORD size = static_cast<DWORD>(pages.size() * sizeof pages[0]);
    if (!::K32QueryWorkingSetEx(::GetCurrentProcess(), pages.data(), size)) {
      fail_with("examine the pages of", path_, ::GetLastError());
    }
    for (std::size_t i = 0; i < pages.size(); ++i) {
      if (pages[i].VirtualAttributes.Valid) resident += std::min(page, bytes - i * page);
    }
  }
  return resident;
}

// Said when the file is opened: a view takes no advice.
void MappedFile::advise_random() const noexcept {}

AtomicFile::AtomicFile(std::string final_path)
    : final_path_(std::move(final_path)), destination_(resolve_destination(final_path_)) {
  remove_leftovers(destination_);
  Handle file(open_temporary(destination_, &temporary_path_));
  if (!file) fail_with("create a temporary file beside", final_path_, ::GetLastError());
  descriptor_ = ::_open_osfhandle(reinterpret_cast<std::intptr_t>(file.get()), _O_BINARY);
  if (descriptor_ < 0) {
    ::DeleteFileW(wide(temporary_path_).c_str());
    fail("create a temporary file beside", final_path_, EMFILE);
  }
  file.give_away();
}

AtomicFile::~AtomicFile() {
  if (descriptor_ >= 0) ::_close(descriptor_);
  if (!committed_) ::DeleteFileW(wide(temporary_path_).c_str());
}

void AtomicFile::append(const void* data, std::uint64_t bytes) {
  write_all(handle_of(descriptor_), data, bytes, nullptr, final_path_);
}

void AtomicFile::write_at(std::uint64_t offset, const void* data, std::uint64_t bytes) {
  write_all(handle_of(descriptor_), data, bytes, &offset, final_path_);
}

std::unique_ptr<Memory> AtomicFile::map_writable(std::uint64_t bytes) {
  reserve(handle_of(descriptor_), bytes, final_path_);
  return std::make_unique<WritableMapping>(handle_of(descriptor_), bytes, final_path_);
}

void AtomicFile::commit() {
  if (!::FlushFileBuffers(handle_of(descriptor_))) {
    fail_with("write", final_path_, ::GetLastError());
  }
  if (::_close(std::exchange(descriptor_, -1)) != 0) fail("write", final_path_, errno);
  const std::wstring made = wide(temporary_path_);
  DWORD error = move_over(made, wide(destination_));
  if (is_in_use(error)) error = replace_by_moving_aside(made, destination_);
  if (error != 0) fail_with("replace", final_path_, error);
  committed_ = true;
}

void release_borrowed(const void* data, std::uint64_t bytes) noexcept {
  drop_pages(static_cast<const std::byte*>(data), bytes);
}

std::uint64_t resident_file_bytes() noexcept { return 0; }

}  // namespace annidx

#endif
