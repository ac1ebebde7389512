"""What makes a trained model faster or better when it captions."""
