"""Who answers: each vendor's paths, the rules of its requests and the words of its errors."""
