"""What is answered: vectors, texts and pictures in the formats that several vendors share."""
