// file.h owns the operating system: memory mapping, page advice, atomic replacement of a file.
// Each system has its half, file_posix.cpp and file_windows.cpp, and #ifdefs of systems are in this
// room alone. It must not know what the bytes mean.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace annidx {

// Identity of a file on disk at the time it was opened: tells whether a path now names another.
struct FileStamp {
  std::uint64_t device = 0;
  std::uint64_t inode = 0;
  std::uint64_t bytes = 0;
  std::int64_t modified_ns = 0;
  bool operator==(const FileStamp& o) const noexcept {
    return device == o.device && inode == o.inode && bytes == o.bytes &&
           modified_ns == o.modified_ns;
  }
};
// Throws Error(io) when the path cannot be examined.
FileStamp stamp_of(const std::string& path);

// A range of memory that holds a file image: anonymous, mapped read-only, or the writable
// mapping of a file being built. Unmapped when destroyed. Not copyable.
class Memory {
 public:
  virtual ~Memory() = default;
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  const std::byte* data() const noexcept { return data_; }
  std::byte* mutable_data() noexcept { return writable_ ? data_ : nullptr; }
  std::uint64_t bytes() const noexcept { return bytes_; }

  // Gives the pages of a range back to the system; their content stays in the file. No effect on
  // anonymous memory.
  virtual void release(std::uint64_t offset, std::uint64_t bytes) noexcept = 0;

 protected:
  Memory() = default;
  std::byte* data_ = nullptr;
  std::uint64_t bytes_ = 0;
  bool writable_ = false;
};

// Zero-filled memory, 64-byte aligned or better, lazily committed. Throws Error(memory).
std::unique_ptr<Memory> allocate_anonymous(std::uint64_t bytes);

// Memory of someone else, read where it lies. `keeper` keeps it, and is let go with the last use.
std::unique_ptr<Memory> borrow(const void* data, std::uint64_t bytes, std::shared_ptr<void> keeper);

// A file mapped read-only and shared. Throws Error(io) with errno and path (also for a directory,
// a pipe or an empty file's mapping: an empty file gives bytes() == 0 and data() == nullptr).
// The descriptor is closed before the constructor returns.
class MappedFile final : public Memory {
 public:
  explicit MappedFile(const std::string& path);
  ~MappedFile() override;
  void release(std::uint64_t offset, std::uint64_t bytes) noexcept override;

  const std::string& path() const noexcept { return path_; }
  const FileStamp& stamp() const noexcept { return stamp_; }
  // Reads the whole file into memory ahead of use (populate, or touching each page). May be slow.
  // Ends what advise_random() asked for. Throws Error(io) when the file cannot be read.
  void warm() const;
  // Keeps the pages in memory (mlock). Throws Error(io) with errno (EAGAIN, ENOMEM, EPERM).
  void lock();
  // Bytes of the mapping that are in physical memory now, in any process. Linux tells only those
  // who own the file or may write to it; to others every page seems present.
  std::uint64_t resident_bytes() const;
  // Advises random access, so that a cold query reads only the pages it needs.
  void advise_random() const noexcept;

 private:
  std::string path_;
  FileStamp stamp_;
};

// A file under construction beside its final path. Readers of the final path see the old file or
// the whole new one. Unless committed, the destructor removes it.
// Where the system allows it has no name until commit(), and nothing stays of it when the process
// is killed. Elsewhere its name starts with "." and ends with ".tmp"; it is locked meanwhile, and
// who makes the same file next removes those that nobody holds a lock on. It is created with mode
// 0666 less the umask in the folder of the final path, and gets owner and mode of the file that it
// replaces. A final path that is a symbolic link stays one: the file that it leads to is replaced.
// Anything but a regular file is refused.
class AtomicFile {
 public:
  explicit AtomicFile(std::string final_path);  // throws Error(io)
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  // Appends; retries short writes and EINTR. Throws Error(io), e.g. ENOSPC, EFBIG, EIO.
  void append(const void* data, std::uint64_t bytes);
  // Reserves `bytes` on disk (so that a full disk is an Error(io) now, not a SIGBUS later) and maps
  // them writable, shared. At most one mapping; it must be destroyed before commit().
  std::unique_ptr<Memory> map_writable(std::uint64_t bytes);
  // Writes through the descriptor at an offset; as append otherwise.
  void write_at(std::uint64_t offset, const void* data, std::uint64_t bytes);
  // fsync of the file, rename over the final path, fsync of the folder.
  void commit();

 private:
  void name_temporary();

  std::string final_path_;      // as given: what messages name
  std::string destination_;     // what it leads to through links: what is replaced
  std::string temporary_path_;  // empty as long as it has no name
  int descriptor_ = -1;
  bool committed_ = false;
};

// Lets the system drop the pages of a read-only shared mapping that we do not own (a caller's
// memory map); the next touch reads them again. `data` need not be aligned. Of memory that is not
// such a mapping (private, copy-on-write, anonymous) the content would be lost.
void release_borrowed(const void* data, std::uint64_t bytes) noexcept;

// Physical memory that this process has mapped of files; 0 where the system does not tell.
std::uint64_t resident_file_bytes() noexcept;

}  // namespace annidx
