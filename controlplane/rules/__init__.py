"""The policy as people read and change it rule by rule: words for rules, and edits of its text."""
