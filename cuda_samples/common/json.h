#pragma once

#include <cstdint>
#include <string>

namespace samples {

// One flat object, a line per member, in the order in which they are added.
class JsonObject {
 public:
  JsonObject& add(const std::string& name, const std::string& value);
  JsonObject& add(const std::string& name, const char* value) {
    return add(name, std::string(value));
  }
  JsonObject& add(const std::string& name, std::uint64_t value);
  JsonObject& add(const std::string& name, bool value);
  // Shortest form that reads back as the same number; what JSON cannot say becomes null.
  JsonObject& add(const std::string& name, double value);

  std::string done() const { return "{\n" + members_ + "\n}\n"; }

 private:
  JsonObject& add_raw(const std::string& name, const std::string& value);
  std::string members_;
};

}  // namespace samples
