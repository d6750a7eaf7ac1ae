// names.h owns the names of files: the parts of a path, and what the temporary files beside a
// destination are called. It must not ask the system about any of them.
#pragma once

#include <string>

namespace annidx {

// The last component of a path; empty when the path ends with a separator.
std::string name_of(const std::string& path);
// The path of `name` in the folder that `path` lies in.
std::string beside(const std::string& path, const std::string& name);

// What the names of all temporary files of a destination start with.
std::string temporary_prefix(const std::string& destination);
// A name that this process has not given before.
std::string next_temporary_path(const std::string& destination, long process);
// Whether `name` is one that next_temporary_path gives, in any process, for this prefix.
bool is_temporary_name(const std::string& name, const std::string& prefix);

}  // namespace annidx
