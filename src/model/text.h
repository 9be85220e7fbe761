// Small helpers on text that the model's parsers and messages share.
#pragma once

#include <string>
#include <string_view>

namespace pesc {

// 'text' in single quotes for a message: control bytes as \xNN, long ones cut short, so that a name
// from anywhere can be shown on a terminal.
std::string in_quotes(std::string_view text);

// Whether a name can be shown in one line of a table: no control characters.
bool has_control_character(std::string_view text);

// The text with everything that a terminal would obey, and all that is not UTF-8, as \xNN: what a
// program or another user wrote is shown, not done. Line feeds and tabs stay.
std::string for_terminal(std::string_view text);

// Cut to at most `max_bytes`, never inside a UTF-8 sequence.
std::string_view cut_utf8(std::string_view text, size_t max_bytes);

}  // namespace pesc
