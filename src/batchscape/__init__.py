"""What does the batch size do to training, and how should the learning rate follow it?"""
